/* Building blocks that the interactive pages share. Everything is made of nodes and text, never of HTML strings. */
"use strict";

globalThis.atlas = globalThis.atlas || {};

/** An element: make("a", {href: "…", class: "…", onclick: f}, "text", child, …). Empty children are skipped. */
atlas.make = function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else node.setAttribute(name, String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
};

/** A measured number with about three figures, as the pages print it. */
atlas.number = function number(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 0.001) return value.toExponential(1);
  return value.toFixed(size < 1 ? 3 : size < 10 ? 2 : 1);
};

/** Words in lower case without accents, for comparison. */
atlas.fold = function fold(text) {
  return text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase();
};

/** Loads one of the site's own scripts once; resolves when it has run. */
atlas.load = (function () {
  const loading = new Map();
  return function load(address) {
    if (!loading.has(address)) {
      loading.set(
        address,
        new Promise((done, failed) => {
          const node = atlas.make("script", { src: address });
          node.addEventListener("load", done);
          node.addEventListener("error", () => failed(new Error(`${address} could not be loaded`)));
          document.head.append(node);
        }),
      );
    }
    return loading.get(address);
  };
})();

/** Badges of a paper: whether it runs here, and what became of its claims. */
atlas.badges = function badges(paper) {
  const found = [];
  const badge = (label, kind, title) => atlas.make("span", { class: `ia-badge ia-badge--${kind}`, title }, label);
  if (paper.here) found.push(badge("implemented", "good", "runs here, with tests"));
  if (paper.claims) {
    const [held, checked] = paper.claims;
    const kind = held === checked ? "good" : held ? "note" : "bad";
    const label = held === checked ? "reproduced" : held ? `${held} of ${checked} claims` : "not reproduced";
    found.push(badge(label, kind, `${held} of ${checked} claims hold in our measurement`));
  }
  return found.flatMap((node, index) => (index ? [" ", node] : [node]));
};

/** The picture of what an implemented attack rebuilt, as a link to its page. */
atlas.picture = function picture(paper, base) {
  if (!paper.picture) return null;
  const [width, height] = paper.picture;
  const image = atlas.make("img", {
    src: `${base}results/${paper.id}.png`, width, height, loading: "lazy", alt: `Reconstructions by ${paper.name}`,
  });
  return atlas.make("a", { href: `${base}papers/${paper.id}/`, class: "ia-thumb" }, image);
};
