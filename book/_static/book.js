// Things that the theme leaves undone.
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

// On paper nothing can be opened, and the dark theme would cost ink: folded code prints open, every page light.
// (sphinx-togglebutton opens exercises and solutions.)
const asRead = [];
addEventListener("beforeprint", () => {
  const page = document.documentElement, theme = page.dataset.theme;
  const folded = [...document.querySelectorAll("details:not([open])")];
  for (const box of folded) box.open = true;
  page.dataset.theme = "light";
  asRead.push(() => { page.dataset.theme = theme; for (const box of folded) box.open = false; });
});
addEventListener("afterprint", () => asRead.splice(0).reverse().forEach(restore => restore()));
