/* The threat page: what is exposed, and which attacks and defenses follow. The answers' state is in the address. */
"use strict";

(function () {
  const root = document.getElementById("atlas-threats");
  if (!root || !globalThis.atlas || !atlas.papers) return;
  const { make, number } = atlas;
  const base = root.dataset.base;
  const { papers, terms, implied, encounters } = atlas.papers;
  const byId = new Map(papers.map((paper) => [paper.id, paper]));
  const names = (paper, facet) => (paper[facet] || []).map((n) => terms[facet][n][0]);
  const attacks = papers.filter((paper) => names(paper, "kind").includes("attack") && paper.access);
  const inUse = (facet) => terms[facet].filter(([term]) => attacks.some((paper) => names(paper, facet).includes(term)));
  const SHOWN = 12; // unmeasured attacks of a setting that are shown at once

  const EXPOSED = {
    "white-box": "The model itself: its weights",
    scores: "Scores or probabilities for chosen inputs",
    "label-only": "Predicted labels for chosen inputs",
    gradients: "Gradients or updates of training",
    features: "Intermediate activations",
    embeddings: "Embedding vectors",
    explanations: "Explanations of predictions",
    logprobs: "Token probabilities of a language model",
    text: "Generated text",
    updates: "Two versions of a model",
    samples: "Synthetic data or generated samples",
  };

  // --- state -----------------------------------------------------------------------------------------------------------

  function read() {
    const query = new URLSearchParams(location.search);
    const known = (facet, values) => new Set(values.filter((value) => terms[facet].some(([term]) => term === value)));
    return {
      exposed: known("access", query.getAll("expose")),
      data: [...known("modality", query.getAll("data"))][0] || "",
      limited: query.get("knows") === "only",
      knows: known("knowledge", query.getAll("know")),
    };
  }

  function write(state) {
    const query = new URLSearchParams();
    for (const term of state.exposed) query.append("expose", term);
    if (state.data) query.set("data", state.data);
    if (state.limited) query.set("knows", "only");
    if (state.limited) for (const term of state.knows) query.append("know", term);
    const text = query.toString();
    return text ? `?${text}` : location.pathname;
  }

  let state = read();

  function change(update) {
    update(state);
    history.pushState(null, "", write(state));
    draw();
  }

  // --- which attacks apply -----------------------------------------------------------------------------------------------

  function granted() {
    const all = new Set(state.exposed);
    for (const term of state.exposed) for (const more of implied[term] || []) all.add(more);
    return all;
  }

  function applies(paper, access) {
    if (!names(paper, "access").some((term) => access.has(term))) return false;
    const data = names(paper, "modality");
    if (state.data && !data.includes(state.data) && !data.includes("any")) return false;
    return !state.limited || names(paper, "knowledge").every((term) => state.knows.has(term));
  }

  // --- the form ----------------------------------------------------------------------------------------------------------

  const checks = (facet, label, update) =>
    inUse(facet).map(([term, definition]) => {
      const box = make("input", { type: "checkbox", value: term, onchange: () => change((s) => update(s, term, box.checked)) });
      return { term, box, line: make("label", { class: "ia-check" }, box, make("span", {}, label(term), make("small", {}, definition))) };
    });
  const toggle = (set) => (s, term, on) => (on ? s[set].add(term) : s[set].delete(term));
  const exposures = checks("access", (term) => EXPOSED[term] || term, toggle("exposed"));
  const knowledge = checks("knowledge", (term) => term, toggle("knows"));
  const data = ["", ...inUse("modality").map(([term]) => term).filter((term) => term !== "any")].map((term) => {
    const box = make("input", { type: "radio", name: "ia-data", value: term, onchange: () => change((s) => (s.data = term)) });
    return { term, box, line: make("label", { class: "ia-check" }, box, make("span", {}, term || "any kind")) };
  });
  const limits = [[false, "Whatever an attack needs"], [true, "Only what is ticked here"]].map(([limited, label]) => {
    const box = make("input", { type: "radio", name: "ia-limited", onchange: () => change((s) => (s.limited = limited)) });
    return { limited, box, line: make("label", { class: "ia-check" }, box, make("span", {}, label)) };
  });
  const knows = make("div", { class: "ia-choices" }, knowledge.map(({ line }) => line));
  const answer = make("div", { class: "ia-answer", role: "region", "aria-label": "Attacks that apply", "aria-live": "polite" });
  root.replaceChildren(
    make("form", { class: "ia-wizard", onsubmit: (event) => event.preventDefault() },
      make("fieldset", {}, make("legend", {}, "1. What do they get to see?"), make("div", { class: "ia-choices" }, exposures.map(({ line }) => line))),
      make("fieldset", {}, make("legend", {}, "2. Which kind of data is private?"), make("div", { class: "ia-choices" }, data.map(({ line }) => line))),
      make("fieldset", {}, make("legend", {}, "3. What may they know besides?"), make("div", { class: "ia-choices" }, limits.map(({ line }) => line)), knows)),
    answer,
  );

  // --- the answer ----------------------------------------------------------------------------------------------------------

  function draw() {
    for (const { term, box } of exposures) box.checked = state.exposed.has(term);
    for (const { term, box } of knowledge) box.checked = state.knows.has(term);
    for (const { term, box } of data) box.checked = state.data === term;
    for (const { limited, box } of limits) box.checked = state.limited === limited;
    knows.hidden = !state.limited;
    if (!state.exposed.size) {
      answer.replaceChildren(make("p", { class: "ia-note" }, "Choose at least one thing that is exposed."));
      return;
    }
    const access = granted();
    const found = attacks.filter((paper) => applies(paper, access));
    const measured = found.filter((paper) => paper.measured);
    const ahead = measured.filter((paper) => paper.measured.ahead);
    answer.replaceChildren(
      make("h2", {}, "What applies"),
      make("p", { class: "ia-verdict" },
        make("strong", {}, `${found.length} attack${found.length === 1 ? "" : "s"}`), " of the catalog need no more than this. ",
        measured.length ? `${measured.length} of them ran here, and ${ahead.length} recovered more than every baseline. ` : "None of them runs here yet. ",
        make("a", { href: `${base}browse/?kind=attack${[...access].map((term) => `&access=${term}`).join("")}${state.data ? `&modality=${state.data}` : ""}` }, "The same in the browser")),
      ...grouped(found),
    );
  }

  function strength(paper) {
    const m = paper.measured;
    if (!m) return -1;
    return (m.ahead ? 2 : 1) + (paper.claims ? paper.claims[0] / paper.claims[1] : 0);
  }

  function grouped(found) {
    const groups = new Map();
    for (const paper of found) {
      const setting = names(paper, "setting")[0];
      if (!groups.has(setting)) groups.set(setting, []);
      groups.get(setting).push(paper);
    }
    const best = (list) => Math.max(...list.map(strength));
    return [...groups].sort((a, b) => best(b[1]) - best(a[1]) || b[1].length - a[1].length).map(([setting, list]) => {
      list.sort((a, b) => strength(b) - strength(a) || (b.measured ? b.measured.value : 0) - (a.measured ? a.measured.value : 0) || b.year - a.year);
      const first = list.filter((paper) => paper.measured);
      const rest = list.filter((paper) => !paper.measured);
      const hidden = rest.slice(SHOWN);
      return make("section", {},
        make("h3", {}, make("a", { href: `${base}taxonomy/setting/${setting}/` }, setting), ` · ${list.length}`),
        first.map(card), rest.length ? make("ul", {}, rest.slice(0, SHOWN).map(line)) : null,
        hidden.length ? make("details", { class: "ia-facet" }, make("summary", {}, `${hidden.length} more, without a measurement here`), make("ul", {}, hidden.map(line))) : null);
    });
  }

  function card(paper) {
    const m = paper.measured;
    const unit = m.unit ? ` ${m.unit}` : "";
    const against = m.baseline === undefined ? "" : `; the best baseline (${m.against.replaceAll("_", " ")}) ${number(m.baseline)}${unit}`;
    return make("article", { class: "ia-attack" },
      make("p", {}, make("a", { href: `${base}papers/${paper.id}/` }, make("strong", {}, paper.name)), ` ${paper.title} `,
        make("small", {}, `${names(paper, "venue")[0]} ${paper.year}`), " ", ...atlas.badges(paper)),
      make("p", {}, "Needs ", make("strong", {}, names(paper, "access").join(" or ")), ...(names(paper, "knowledge").length ? [" and ", names(paper, "knowledge").join(", ")] : []),
        "; recovers ", names(paper, "goal").join(", "), "."),
      make("p", {}, "Measured here, toy scale: ", make("strong", { title: m.says }, `${m.metric.replaceAll("_", " ")} ${number(m.value)}${unit}`), `${against}. `,
        paper.notebook ? make("a", { href: `${base}notebooks/${paper.id}/` }, "Notebook") : null),
      defenses(paper), atlas.picture(paper, base));
  }

  function defenses(paper) {
    const met = encounters.filter((one) => one.attack === paper.id);
    const told = papers.filter((other) => (other.guards || []).includes(paper.id) && !met.some((one) => one.defense === other.id));
    const measured = met.map((one) => {
      const other = byId.get(one.defense);
      return make("li", {}, other ? make("a", { href: `${base}papers/${one.defense}/` }, other.name) : one.defense,
        `: ${one.metric.replaceAll("_", " ")} ${number(one.values[0])} → ${number(one.values[1])}, ${one.utility.replaceAll("_", " ")} ${number(one.worth[0])} → ${number(one.worth[1])}`,
        one.helps ? "" : " (did not help here)");
    });
    if (!measured.length && !told.length) return make("p", { class: "ia-note" }, "No defense of the catalog names it yet.");
    return make("div", {},
      measured.length ? make("p", {}, "Defenses measured against it:") : null, measured.length ? make("ul", {}, measured) : null,
      told.length ? make("p", { class: "ia-note" }, "Defenses by their papers, not measured here: ",
        told.flatMap((other, index) => [index ? ", " : "", make("a", { href: `${base}papers/${other.id}/` }, other.name)])) : null);
  }

  function line(paper) {
    return make("li", {}, make("a", { href: `${base}papers/${paper.id}/` }, paper.name), " ", make("small", {},
      `${names(paper, "venue")[0]} ${paper.year}; sees ${names(paper, "access").join(" or ")}; wants ${names(paper, "goal").join(", ")}`), " ", ...atlas.badges(paper));
  }

  addEventListener("popstate", () => {
    state = read();
    draw();
  });
  draw();
})();
