// All pages of the book in one, to be printed; see pdf.py and pages.js.
"use strict";

const book = (() => {
  const {element, all, title, author, name, article, startMathJax, front} = pages;

  // Ids of the whole book: those of a page, numbered, because a name in a PDF has at most 127 bytes.
  const targets = new Map();
  function target(url, id = "") {
    const whole = `${name(url)}#${id}`;
    if (!targets.has(whole)) targets.set(whole, id ? `t${targets.size}` : name(url));
    return targets.get(whole);
  }

  function contents() {
    const list = element("div", {className: "front-contents"}, element("h1", {}, "Contents"));
    for (const part of all) {
      if (part.caption) list.append(element("p", {className: "part"}, part.caption));
      for (const page of part.pages) {
        list.append(element("p", {}, element("a", {href: `#${target(page.url)}`}, element("span", {}, page.title), element("b"))));
      }
    }
    return list;
  }

  // The signs of a text that no font here has: each is drawn as the box that stands for one that nobody has.
  function boxed(text) {
    const canvas = element("canvas", {width: 40, height: 40});
    const pen = canvas.getContext("2d", {willReadFrequently: true});
    pen.font = "24px sans-serif";
    const drawn = sign => {
      pen.clearRect(0, 0, 40, 40);
      pen.fillText(sign, 4, 30);
      return canvas.toDataURL();
    };
    const box = drawn("\u{10fffd}");
    return [...new Set(text)].filter(sign => sign > "\u007f" && !/\p{Private_Use}/u.test(sign) && drawn(sign) === box);
  }

  // All pages in the place of the first, each with a running title of its own. Sphinx's `singlehtml` has this, too,
  // but there an id such as `exercises` is in the page once for each chapter, and links lead to the first.
  async function stitch(edition) {
    const address = (page, id) => "#" + target(page, id);
    const inside = element("div", {className: "bd-article-container"}), rules = [];
    inside.append(front(edition), contents());
    for (const part of all) {
      for (const page of part.pages) {
        const found = document.importNode(await article(page.url, address), true);
        for (const node of found.querySelectorAll("[id]")) node.id = target(page.url, node.id);
        for (const box of found.querySelectorAll("details")) box.open = true;
        // The outline is made of headings: a part is one level above its pages.
        for (const heading of part.caption ? found.querySelectorAll("h1, h2, h3, h4, h5") : []) {
          heading.ariaLevel = Number(heading.localName[1]) + 1;
        }
        if (part.caption && page === part.pages[0]) found.prepend(element("h1", {className: "part"}, part.caption));
        found.id = target(page.url);
        found.style.page = `page-${rules.length}`;
        const running = (where, words) => `@top-${where} { content: ${JSON.stringify(words)}; font: 8pt sans-serif; color: #555; }`;
        rules.push(`@page page-${rules.length} { ${running("left", part.caption || title)} ${running("right", page.title)} }`);
        inside.append(found);
      }
    }
    const boxes = boxed(inside.textContent);  // before MathJax, which brings fonts of its own
    document.body.replaceChildren(element("div", {className: "bd-main whole-book"}, element("div", {className: "bd-content"}, inside)));
    document.head.append(element("style", {textContent: rules.join("\n")}));
    document.title = title;
    await startMathJax();
    await window.MathJax?.typesetPromise([inside]);
    // Between a formula and its full stop a browser breaks the line, unless a word joiner forbids it.
    for (const math of inside.querySelectorAll("span.math")) {
      const next = math.nextSibling;
      if (next?.nodeType === Node.TEXT_NODE && /^[.,;:!?)\]’]/.test(next.data)) next.data = "\u2060" + next.data;
    }
    await Promise.all([document.fonts.ready, ...[...document.images].map(image => image.decode())]);
    const lost = [...targets].filter(([, id]) => !document.getElementById(id)).map(([whole]) => whole);
    // What MathJax does not take for a formula, it leaves as TeX and says nothing.
    return {author, lost, boxes, errors: inside.querySelectorAll(".math:not(:has(mjx-container)), mjx-merror").length};
  }

  // Each entry of the contents gets the number of its page, from an object of numbers by id.
  function number(pages) {
    for (const link of document.querySelectorAll(".front-contents a")) {
      link.lastChild.textContent = pages[link.getAttribute("href").slice(1)] ?? "";
    }
  }

  return {stitch, number};
})();
