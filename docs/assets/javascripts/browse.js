/* The paper browser: facets with live counts, free text, sorting, comparison and export; its whole state is in the address. */
"use strict";

(function () {
  const root = document.getElementById("atlas-browser");
  if (!root || !globalThis.atlas || !atlas.papers) return;
  const { make, fold, number } = atlas;
  const base = root.dataset.base;
  const { papers, terms } = atlas.papers;

  const FACETS = [
    ["kind", "Kind"], ["setting", "Setting"], ["modality", "Data"], ["access", "Access"], ["goal", "Goal"],
    ["knowledge", "Knowledge"], ["adversary", "Adversary"], ["approach", "Approach"], ["technique", "Technique"],
    ["venue", "Venue"],
  ];
  const FLAGS = [
    ["implemented", "Runs here", (paper) => paper.here],
    ["reproduced", "A claim reproduced here", (paper) => paper.claims && paper.claims[0] > 0],
    ["code", "Authors' code", (paper) => paper.code],
  ];
  const SORTS = {
    newest: ["Newest first", (a, b) => b.year - a.year || compareNames(a, b)],
    oldest: ["Oldest first", (a, b) => a.year - b.year || compareNames(a, b)],
    name: ["By name", compareNames],
    author: ["By first author", (a, b) => family(a).localeCompare(family(b)) || a.year - b.year],
    measured: ["Measured here first", (a, b) => rank(b) - rank(a) || b.year - a.year || compareNames(a, b)],
  };
  const CHUNK = 60; // rows drawn at once; more follow as the reader scrolls
  const MOST_COMPARED = 5;
  const OPEN = new Set(["kind", "setting", "access"]); // facets that are unfolded at first on wide screens

  function compareNames(a, b) {
    return a.name.localeCompare(b.name, "en", { sensitivity: "base" }) || a.id.localeCompare(b.id);
  }
  function family(paper) {
    return paper.authors[0].split(" ").pop();
  }
  function rank(paper) {
    return (paper.claims ? 2 + paper.claims[0] / paper.claims[1] : 0) + (paper.here ? 1 : 0);
  }

  const years = papers.map((paper) => paper.year);
  const FIRST = Math.min(...years);
  const LAST = Math.max(...years);
  const byId = new Map(papers.map((paper, index) => [paper.id, index]));
  const texts = papers.map((paper) => fold(`${paper.name} ${paper.title} ${paper.authors.join(" ")} ${paper.id}`));
  let summaries = null; // loaded when somebody types
  const has = Object.fromEntries(
    FACETS.map(([facet]) => [facet, papers.map((paper) => new Set(paper[facet] || []))]),
  );
  const numbers = Object.fromEntries(
    FACETS.map(([facet]) => [facet, new Map(terms[facet].map(([term], index) => [term, index]))]),
  );

  // --- state and address ---------------------------------------------------------------------------------------------

  function read(search) {
    const query = new URLSearchParams(search);
    const state = { q: query.get("text") || "", sort: query.get("sort") || "newest", flags: new Set(), compare: [], facets: {} };
    for (const [facet] of FACETS) {
      state.facets[facet] = new Set(query.getAll(facet).map((term) => numbers[facet].get(term)).filter((n) => n !== undefined));
    }
    for (const [flag] of FLAGS) if (query.get(flag) === "yes") state.flags.add(flag);
    const year = (name, otherwise) => {
      const value = Number.parseInt(query.get(name), 10);
      return value >= FIRST && value <= LAST ? value : otherwise;
    };
    state.from = year("from", FIRST);
    state.to = year("to", LAST);
    if (!SORTS[state.sort]) state.sort = "newest";
    state.compare = query.getAll("compare").filter((id) => byId.has(id)).slice(0, MOST_COMPARED);
    return state;
  }

  function write(state) {
    const query = new URLSearchParams();
    if (state.q.trim()) query.set("text", state.q.trim()); // the theme takes `q` for its own search
    for (const [facet] of FACETS) for (const n of state.facets[facet]) query.append(facet, terms[facet][n][0]);
    for (const flag of state.flags) query.set(flag, "yes");
    if (state.from !== FIRST) query.set("from", state.from);
    if (state.to !== LAST) query.set("to", state.to);
    if (state.sort !== "newest") query.set("sort", state.sort);
    for (const id of state.compare) query.append("compare", id);
    const text = query.toString();
    return text ? `?${text}` : location.pathname;
  }

  let state = read(location.search);

  function change(update, replace) {
    update(state);
    history[replace ? "replaceState" : "pushState"](null, "", write(state));
    draw();
  }

  // --- filtering -----------------------------------------------------------------------------------------------------

  /** For each facet the papers that pass all other filters, and the papers that pass everything. */
  function filter() {
    const words = fold(state.q).split(/\s+/).filter(Boolean);
    const flags = FLAGS.filter(([flag]) => state.flags.has(flag));
    const chosen = FACETS.filter(([facet]) => state.facets[facet].size);
    const passed = [];
    const counts = Object.fromEntries(FACETS.map(([facet]) => [facet, new Uint32Array(terms[facet].length)]));
    papers.forEach((paper, index) => {
      if (paper.year < state.from || paper.year > state.to) return;
      if (!flags.every(([, , test]) => test(paper))) return;
      if (!words.every((word) => texts[index].includes(word) || (summaries && summaries[index].includes(word)))) return;
      let missed = null;
      for (const [facet] of chosen) {
        const mine = has[facet][index];
        let any = false;
        for (const n of state.facets[facet]) any = any || mine.has(n);
        if (!any) {
          if (missed !== null) return; // fails two facets: counts for none
          missed = facet;
        }
      }
      if (missed === null) {
        passed.push(index);
        for (const [facet] of FACETS) for (const n of has[facet][index]) counts[facet][n] += 1;
      } else {
        for (const n of has[missed][index]) counts[missed][n] += 1;
      }
    });
    const order = SORTS[state.sort][1];
    passed.sort((a, b) => order(papers[a], papers[b]));
    return { passed, counts };
  }

  // --- the frame, made once --------------------------------------------------------------------------------------------

  const search = make("input", {
    type: "search", id: "ia-q", class: "ia-field", placeholder: "Author, title, method, word of the summary", autocomplete: "off",
    spellcheck: "false", oninput: () => typed(),
  });
  const sort = make(
    "select", { id: "ia-sort", class: "ia-field", onchange: () => change((s) => (s.sort = sort.value)) },
    Object.entries(SORTS).map(([name, [label]]) => make("option", { value: name }, label)),
  );
  const yearField = (id, label, key) => {
    const select = make("select", { id, class: "ia-field", "aria-label": label, onchange: () => change((s) => (s[key] = Number(select.value))) });
    for (let year = FIRST; year <= LAST; year += 1) select.append(make("option", { value: year }, String(year)));
    return select;
  };
  const from = yearField("ia-from", "First year", "from");
  const to = yearField("ia-to", "Last year", "to");
  const flagBoxes = FLAGS.map(([flag, label]) => {
    const box = make("input", {
      type: "checkbox", onchange: () => change((s) => (box.checked ? s.flags.add(flag) : s.flags.delete(flag))),
    });
    return [flag, box, make("label", { class: "ia-check" }, box, make("span", {}, label))];
  });
  const groups = FACETS.map(([facet, label]) => {
    const boxes = terms[facet].map(([term, definition], n) => {
      const box = make("input", {
        type: "checkbox", value: term, onchange: () => change((s) => (box.checked ? s.facets[facet].add(n) : s.facets[facet].delete(n))),
      });
      const count = make("span", { class: "ia-count" });
      const line = make("label", { class: "ia-check", title: definition }, box, make("span", {}, term), count);
      return { box, count, line };
    });
    const chosen = make("span", { class: "ia-chosen" });
    const list = make("div", { class: "ia-options", role: "group", "aria-label": label }, boxes.map(({ line }) => line));
    const details = make("details", { class: "ia-facet", "data-facet": facet }, make("summary", {}, label, chosen), list);
    return { facet, boxes, chosen, list, details };
  });
  const status = make("p", { class: "ia-status", role: "status", "aria-live": "polite" });
  const clear = make("button", { type: "button", class: "ia-button", onclick: () => change(reset) }, "Clear filters");
  const chips = make("div", { class: "ia-chips" });
  const body = make("tbody");
  const table = make(
    "table", { class: "ia-results" }, make("caption", { class: "ia-hidden" }, "Papers that pass the filters"),
    make("thead", {}, make("tr", {}, ["Paper", "Venue", "Kind", "Access", "Here", "Compare"].map((name) => make("th", { scope: "col" }, name)))),
    body,
  );
  const more = make("button", { type: "button", class: "ia-button ia-more", onclick: () => grow() }, "Show more");
  const comparison = make("section", { class: "ia-comparison", "aria-label": "Comparison", tabindex: "-1" });
  const tray = make("div", { class: "ia-tray", role: "region", "aria-label": "Papers chosen for comparison" });
  const exported = make("span", { class: "ia-note", role: "status" });
  const filters = make(
    "details", { class: "ia-filters", open: matchMedia("(min-width: 60em)").matches },
    make("summary", { class: "ia-filters__head" }, "Filters"),
    make("div", { class: "ia-years" }, make("span", {}, "Years"), from, make("span", {}, "to"), to),
    make("div", { class: "ia-flags", role: "group", "aria-label": "Evidence" }, flagBoxes.map(([, , line]) => line)),
    groups.map(({ details }) => details),
  );
  for (const { facet, details } of groups) details.open = OPEN.has(facet) && matchMedia("(min-width: 60em)").matches;
  root.replaceChildren(
    make("div", { class: "ia-bar" },
      make("label", { class: "ia-hidden", for: "ia-q" }, "Search in the catalog"), search,
      make("label", { class: "ia-hidden", for: "ia-sort" }, "Order"), sort),
    make("div", { class: "ia-columns" }, filters,
      make("div", { class: "ia-found" },
        make("div", { class: "ia-head" }, status, chips,
          make("div", { class: "ia-export" }, make("span", { class: "ia-note" }, "Export this selection: "),
            ["BibTeX", "CSV", "JSON"].map((format) =>
              make("button", { type: "button", class: "ia-button", onclick: () => save(format) }, format)), exported)),
        comparison, table, more)),
    tray,
  );

  function reset(s) {
    s.q = "";
    s.flags.clear();
    s.from = FIRST;
    s.to = LAST;
    for (const [facet] of FACETS) s.facets[facet].clear();
  }

  function typed() {
    if (!summaries) {
      atlas.load(`${base}data/summaries.js`).then(() => {
        summaries = atlas.summaries.map(fold);
        draw();
      });
    }
    change((s) => (s.q = search.value), true);
  }

  // --- drawing ---------------------------------------------------------------------------------------------------------

  let found = [];
  let drawn = 0;

  function draw() {
    const { passed, counts } = filter();
    found = passed;
    if (document.activeElement !== search) search.value = state.q;
    sort.value = state.sort;
    from.value = state.from;
    to.value = state.to;
    for (const [flag, box] of flagBoxes) box.checked = state.flags.has(flag);
    for (const { facet, boxes, chosen, list } of groups) {
      const mine = state.facets[facet];
      boxes.forEach(({ box, count, line }, n) => {
        box.checked = mine.has(n);
        count.textContent = counts[facet][n];
        line.hidden = !counts[facet][n] && !mine.has(n);
      });
      chosen.textContent = mine.size ? ` ${mine.size}` : "";
      if (mine.size) list.parentNode.open = true;
    }
    status.replaceChildren(
      make("strong", {}, found.length.toLocaleString("en")), ` of ${papers.length.toLocaleString("en")} papers`,
    );
    drawChips();
    body.replaceChildren();
    drawn = 0;
    grow();
    drawComparison();
  }

  function drawChips() {
    const chip = (label, undo) =>
      make("button", { type: "button", class: "ia-chip", "aria-label": `Remove the filter ${label}`, onclick: () => change(undo) }, label, make("span", { "aria-hidden": "true" }, " ×"));
    const all = [];
    if (state.q.trim()) all.push(chip(`“${state.q.trim()}”`, (s) => { s.q = ""; search.value = ""; }));
    if (state.from !== FIRST || state.to !== LAST) all.push(chip(`${state.from}–${state.to}`, (s) => { s.from = FIRST; s.to = LAST; }));
    for (const [flag, label] of FLAGS) if (state.flags.has(flag)) all.push(chip(label, (s) => s.flags.delete(flag)));
    for (const [facet] of FACETS) for (const n of state.facets[facet]) all.push(chip(terms[facet][n][0], (s) => s.facets[facet].delete(n)));
    chips.replaceChildren(...all, ...(all.length ? [clear] : []));
  }

  function grow() {
    const rows = document.createDocumentFragment();
    const until = Math.min(found.length, drawn + CHUNK);
    for (; drawn < until; drawn += 1) rows.append(row(papers[found[drawn]]));
    body.append(rows);
    more.hidden = drawn >= found.length;
    if (!found.length) body.append(make("tr", {}, make("td", { colspan: 6 }, "No paper passes these filters. ", make("button", { type: "button", class: "ia-button", onclick: () => change(reset) }, "Clear filters"))));
  }

  function row(paper) {
    const title = paper.title.startsWith(`${paper.name}:`) ? paper.title.slice(paper.name.length + 1).trim() : paper.title;
    const who = paper.authors.length > 3 ? `${paper.authors[0]} and ${paper.authors.length - 1} others` : paper.authors.join(", ");
    const box = make("input", {
      type: "checkbox", "aria-label": `Compare ${paper.name}`, "data-id": paper.id,
      onchange: () => change((s) => {
        s.compare = s.compare.filter((id) => id !== paper.id);
        if (box.checked) s.compare = [...s.compare, paper.id].slice(-MOST_COMPARED);
      }),
    });
    box.checked = state.compare.includes(paper.id);
    const words = (facet) => (paper[facet] || []).map((n) => terms[facet][n][0]).join(", ");
    const cell = (label, ...children) => make("td", { "data-label": label }, ...children);
    return make("tr", {},
      make("th", { scope: "row" }, make("a", { href: `${base}papers/${paper.id}/` }, paper.name),
        make("span", { class: "ia-title" }, title), make("small", {}, who)),
      cell("Venue", `${words("venue")} ${paper.year}`), cell("Kind", words("kind")), cell("Access", words("access")),
      cell("Here", atlas.badges(paper)), cell("Compare", box));
  }

  if ("IntersectionObserver" in globalThis) {
    new IntersectionObserver((seen) => {
      if (seen.some((entry) => entry.isIntersecting) && drawn < found.length) grow();
    }, { rootMargin: "600px" }).observe(more);
  }

  // --- comparison ------------------------------------------------------------------------------------------------------

  function drawComparison() {
    const chosen = state.compare.map((id) => papers[byId.get(id)]);
    tray.hidden = !chosen.length;
    for (const box of body.querySelectorAll("input[data-id]")) box.checked = state.compare.includes(box.dataset.id);
    if (!chosen.length) {
      comparison.replaceChildren();
      return;
    }
    tray.replaceChildren(
      make("span", {}, `${chosen.length} chosen: `),
      ...chosen.map((paper) => make("button", { type: "button", class: "ia-chip", "aria-label": `Leave ${paper.name} out of the comparison`,
        onclick: () => change((s) => (s.compare = s.compare.filter((id) => id !== paper.id))) }, paper.name, make("span", { "aria-hidden": "true" }, " ×"))),
      chosen.length > 1
        ? make("button", { type: "button", class: "ia-button", onclick: () => { comparison.scrollIntoView(); comparison.focus(); } }, "Show the comparison")
        : make("span", { class: "ia-note" }, `choose 2 to ${MOST_COMPARED}`),
    );
    if (chosen.length < 2) {
      comparison.replaceChildren();
      return;
    }
    const words = (facet) => (paper) => (paper[facet] || []).map((n) => terms[facet][n][0]).join(", ");
    const told = (paper) => {
      const m = paper.measured;
      if (!m) return paper.claims ? atlas.badges(paper) : "";
      const unit = m.unit ? ` ${m.unit}` : "";
      const against = m.baseline === undefined ? "" : ` (best baseline ${number(m.baseline)}${unit})`;
      return [`${m.metric.replaceAll("_", " ")} ${number(m.value)}${unit}${against} `, ...atlas.badges(paper).slice(2)];
    };
    const lines = [
      ["Published", (paper) => `${words("venue")(paper)} ${paper.year}`], ["Kind", words("kind")], ["Setting", words("setting")],
      ["Data", words("modality")], ["The adversary sees", words("access")], ["wants", words("goal")], ["knows", words("knowledge")],
      ["is", words("adversary")], ["Approach", words("approach")], ["Techniques", words("technique")],
      ["Metrics", (paper) => (paper.metrics || []).join(", ")], ["Data sets", (paper) => (paper.datasets || []).join(", ")],
      ["Measured here, toy scale", told], ["Authors' code", (paper) => (paper.code ? "yes" : "")],
    ];
    const filled = lines.map(([label, tell]) => [label, chosen.map(tell)]).filter(([, cells]) => cells.some((cell) => cell && cell.length));
    comparison.replaceChildren(
      make("h2", {}, "Side by side"),
      make("div", { class: "ia-scroll", tabindex: "0", role: "region", "aria-label": "Side by side" }, make("table", { class: "ia-compare" },
        make("thead", {}, make("tr", {}, make("td", {}), chosen.map((paper) => make("th", { scope: "col" }, make("a", { href: `${base}papers/${paper.id}/` }, paper.name))))),
        make("tbody", {}, filled.map(([label, cells]) => make("tr", {}, make("th", { scope: "row" }, label), cells.map((cell) => make("td", {}, cell && cell.length ? cell : "–"))))))),
    );
  }

  // --- export ----------------------------------------------------------------------------------------------------------

  const PICK = {
    BibTeX: ["papers.bib", "application/x-bibtex", (text, ids) =>
      text.split(/^(?=@)/m).filter((entry) => ids.has((/^@\w+\{([^,]+),/.exec(entry) || [])[1])).join("")],
    CSV: ["papers.csv", "text/csv", (text, ids) => {
      const [head, ...lines] = text.split("\n"); // one line a paper: the catalog's texts have no line breaks
      return [head, ...lines.filter((line) => ids.has(line.split(",", 1)[0]))].join("\n") + "\n";
    }],
    JSON: ["papers.json", "application/json", (text, ids) => `${JSON.stringify(JSON.parse(text).filter((entry) => ids.has(entry.id)), null, 1)}\n`],
  };

  async function save(format) {
    const [file, type, pick] = PICK[format];
    const ids = new Set(found.map((index) => papers[index].id));
    exported.textContent = "";
    try {
      const answer = await fetch(`${base}exports/${file}`);
      if (!answer.ok) throw new Error(String(answer.status));
      const blob = new Blob([pick(await answer.text(), ids)], { type });
      const link = make("a", { href: URL.createObjectURL(blob), download: file });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      exported.textContent = ` ${ids.size} papers saved as ${file}`;
    } catch (problem) {
      exported.replaceChildren(" A page opened from a folder may not read files. All papers: ", make("a", { href: `${base}exports/${file}` }, file));
    }
  }

  addEventListener("popstate", () => {
    state = read(location.search);
    search.value = state.q;
    draw();
  });
  search.value = state.q;
  if (state.q) typed();
  else draw();
})();
