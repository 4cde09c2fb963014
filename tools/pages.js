// The pages of the built book, made fit for paper and for e-readers: in order, unfolded, without a script.
// pdf.py and epub.py load this, and then the script of their name, into the first page of the book, in a browser: so
// HTML is read as readers' browsers read it, and equations are set by the MathJax that sets them on the pages.
"use strict";

const pages = (() => {
  const root = new URL(document.documentElement.dataset.content_root, location.href);
  const first = location.href.split(/[?#]/)[0];
  const canonical = document.querySelector("link[rel=canonical]");
  const published = canonical && new URL(document.documentElement.dataset.content_root, canonical.href);
  const text = node => (node?.textContent ?? "").replace(/\s+/g, " ").trim();
  const element = (name, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...children);
    return made;
  };
  let mathjax = [];  // the scripts that a page with equations has; one without equations has none

  // The theme's menu has all pages in the order of reading, under the names of the parts.
  function parts() {
    const heading = document.querySelector("article h1").cloneNode(true);
    heading.querySelector(".headerlink")?.remove();
    const found = [{caption: "", pages: [{url: first, title: text(heading)}]}];
    for (const node of document.querySelectorAll("nav.bd-links :is(p.caption, li > a)")) {
      const url = node.href?.split(/[?#]/)[0];
      if (node.matches("p")) found.push({caption: text(node), pages: []});
      else if (url.startsWith(root.href) && url !== first) found.at(-1).pages.push({url, title: text(node)});
    }
    return found.filter(part => part.pages.length);
  }

  const all = parts(), known = new Set(all.flatMap(part => part.pages.map(page => page.url)));
  const title = text(document.querySelector(".navbar-brand .logo__title")) || document.title;
  const author = text(document.querySelector(".component-author")).replace(/^By /, "");
  const name = url => url.slice(root.href.length).replace(/\.html$/, "");

  // One page's article, in which every link leads where `address(page, id)` says.
  async function article(url, address) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url} does not load: ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.querySelector("article.bd-article");
    const scripts = [...page.scripts].filter(one => /mathjax/i.test(one.src || one.text.slice(0, 40)));
    if (scripts.length && !mathjax.length) mathjax = scripts.map(one => [one.text, one.src && new URL(one.getAttribute("src"), url).href]);
    // A parser that runs no script takes what stands there for readers without one for part of the page.
    for (const without of found.querySelectorAll("noscript")) without.replaceWith(...without.childNodes);
    for (const extra of found.querySelectorAll("script, style, form, button, .headerlink, .viewcode-link, .viewcode-back")) extra.remove();
    // Words of code in the colour of the text need no element: there are half a million.
    for (const word of found.querySelectorAll("pre span:is(:empty, .n, .nn, .nx, .p, .w)")) word.replaceWith(...word.childNodes);
    found.normalize();
    for (const image of found.querySelectorAll("img")) image.src = new URL(image.getAttribute("src"), url).href;
    for (const link of found.querySelectorAll("a[href]")) {
      const to = new URL(link.getAttribute("href"), url);
      const page = to.href.split(/[?#]/)[0];
      if (known.has(page)) link.setAttribute("href", address(page, decodeURIComponent(to.hash.slice(1)), url));
      else if (!to.href.startsWith(root.href)) continue;
      else if (published) link.setAttribute("href", new URL(to.href.slice(root.href.length), published).href);
      else link.replaceWith(...link.childNodes);  // source listings and the index stay behind
    }
    return found;
  }

  async function startMathJax() {
    for (const [code, src] of window.MathJax?.startup ? [] : mathjax) {
      const script = element("script", src ? {src} : {text: code});
      await new Promise((done, fail) => {
        Object.assign(script, {onload: done, onerror: () => fail(new Error(`${src} does not load`))});
        document.head.append(script);
        if (!src) done();
      });
    }
    await window.MathJax?.startup?.promise;
  }

  // The title page; `edition` is the line below the author.
  function front(edition) {
    const logo = document.querySelector(".navbar-brand img");
    return element("section", {className: "front"}, ...(logo ? [element("img", {src: logo.src, alt: ""})] : []),
      element("p", {className: "front-title"}, title), element("p", {}, author),
      element("p", {className: "front-edition"}, edition, ...(published ? [element("br"), published.href] : [])));
  }

  return {root, text, element, all, title, author, name, article, startMathJax, front};
})();
