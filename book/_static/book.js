// Things that the theme leaves undone.
"use strict";

// A page opened from the disk may not read another: then search shows titles, without a line of text under each.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// Search takes the buttons above a page for its text, and puts a word in the glossary before the chapter named after it.
if (typeof Search !== "undefined") {
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const article = page.querySelector("article.bd-article");
    for (const extra of article?.querySelectorAll(".headerlink, script, style, details, svg") ?? []) extra.remove();
    return ((anchor && page.getElementById(anchor.slice(1))) || article)?.textContent ?? "";
  };
  Scorer.score = ([page, title, anchor, , score]) => {
    const words = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().split(/\s+/);
    const [chapter, section] = title.split(" > ");
    if (section && chapter.endsWith(section)) return -1;  // the title once more, without its number
    const named = (section ?? chapter).toLowerCase();
    if (!page.startsWith("notebooks/") || !words.every(word => named.includes(word))) return score;
    return score + (anchor ? 60 : 200);
  };
}

// What is wider than its box scrolls inside it. The keyboard can scroll it only if it can have the focus.
function reachable(where = document) {
  for (const box of where.querySelectorAll(".bd-article *")) {
    if (box.scrollWidth > box.clientWidth && /auto|scroll/.test(getComputedStyle(box).overflowX)) box.tabIndex = 0;
  }
}

addEventListener("load", () => {
  const typeset = window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve();
  typeset.then(() => reachable());
});
addEventListener("resize", () => reachable());
// What is folded has another width, or none: code by the theme, solutions by an extension.
addEventListener("toggle", event => reachable(event.target), true);
addEventListener("click", event => {
  const solution = event.target.closest(".toggle");
  if (solution) reachable(solution);
});

// A tip closes when its word loses the focus: the keyboard must not go into it.
if (typeof tippy !== "undefined") {
  const held = "a, pre, .math, .tippy-content";
  const closed = tip => { for (const e of tip.popper.querySelectorAll(held)) e.tabIndex = -1; };
  tippy.setDefaultProps({ onMount: closed });
}

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
