/* Regions that scroll sideways can be reached and scrolled by keyboard. */
"use strict";

(function () {
  const MAY_SCROLL = ".ia-scroll, .md-typeset__scrollwrap, .md-typeset__table, .arithmatex, .ia-figure, .jp-OutputArea-child, .jp-OutputArea-output";

  function mark() {
    for (const node of document.querySelectorAll(MAY_SCROLL)) {
      const scrolls = node.scrollWidth > node.clientWidth && getComputedStyle(node).overflowX !== "visible";
      if (scrolls) node.tabIndex = 0;
      else if (node.tabIndex === 0 && !node.hasAttribute("role")) node.removeAttribute("tabindex");
    }
  }

  addEventListener("load", mark);
  addEventListener("resize", mark);
})();
