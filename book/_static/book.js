// Two things that the theme leaves undone.
"use strict";

// A page opened from the disk may not read another: then search shows titles, without a line of text under each.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// What is wider than its box scrolls inside it. The keyboard can scroll it only if it can have the focus.
function reachable() {
  for (const box of document.querySelectorAll(".bd-article *")) {
    if (box.scrollWidth > box.clientWidth && /auto|scroll/.test(getComputedStyle(box).overflowX)) box.tabIndex = 0;
  }
}

addEventListener("load", () => {
  const typeset = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
  typeset.then(reachable);
});
addEventListener("resize", reachable);
