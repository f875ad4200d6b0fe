/* Sets the formulas of a page. The source stays readable where scripts are off. */
"use strict";

for (const node of document.querySelectorAll(".arithmatex")) {
  const display = node.tagName === "DIV";
  const source = node.textContent.trim().replace(/^\\[([]|\\[)\]]$/g, "");
  katex.render(source, node, { displayMode: display, throwOnError: false, output: "htmlAndMathml", strict: "ignore" });
}
