// All pages of the book as XHTML, for an e-reader; see epub.py and pages.js.
"use strict";

const book = (() => {
  const {root, text, all, title, author, name, article, startMathJax, front} = pages;

  // To a reader that knows MathML Core alone ℝ is a letter of its own, and no R in another face.
  const faces = {"double-struck": [0x1d538, 0x1d7d8, "CℂHℍNℕPℙQℚRℝZℤ"], script: [0x1d49c, NaN, "BℬEℰFℱHℋIℐLℒMℳRℛ"]};
  function face(node) {
    const [capital, digit, others] = faces[node.getAttribute("mathvariant")] ?? [], letter = node.textContent;
    if (!capital || !(digit ? /^[A-Z0-9]$/ : /^[A-Z]$/).test(letter)) return;
    node.textContent = others.includes(letter) ? others[others.indexOf(letter) + 1]
      : String.fromCodePoint(/\d/.test(letter) ? digit + Number(letter) : capital + letter.charCodeAt(0) - 65);
    node.removeAttribute("mathvariant");
  }

  // A formula as MathML, which e-readers set themselves; its TeX is the text for those that cannot.
  async function mathml(found) {
    for (const box of found.querySelectorAll(".math")) {
      for (const node of [...box.childNodes].filter(node => node.nodeType === Node.TEXT_NODE && node.data.trim())) {
        const tex = node.data.trim().replace(/^\\[([]|\\[)\]]$/g, "").trim();
        const made = await MathJax.tex2mmlPromise(tex, {display: box.localName === "div"});
        const math = new DOMParser().parseFromString(made, "application/xml").documentElement;
        for (const inner of [math, ...math.querySelectorAll("*")]) {
          for (const {name} of [...inner.attributes]) if (name.startsWith("data-")) inner.removeAttribute(name);
          face(inner);
        }
        // MathJax leaves the space after `tanh` to those who set it, and some set none.
        for (const apply of math.querySelectorAll("mo")) {
          if (apply.textContent === "\u2061" && !/^[(\[{]/.test(apply.nextElementSibling?.textContent)) apply.setAttribute("rspace", "0.17em");
        }
        math.setAttribute("alttext", tex.replace(/\s+/g, " "));
        node.replaceWith(document.importNode(math, true));
      }
    }
  }

  // The title page and all others as XHTML, with the pictures that they show.
  async function chapters(edition) {
    const images = new Set();
    const up = url => "../".repeat(name(url).split("/").length - 1);
    const address = (page, id, from) => `${up(from)}${name(page)}.xhtml` + (id && "#" + id);
    const xhtml = (found, url) => {
      for (const image of found.querySelectorAll("img")) {
        if (!image.src.startsWith(root.href)) continue;  // it holds its own drawing
        const path = image.src.slice(root.href.length);
        images.add(path);
        image.setAttribute("src", up(url) + path);
      }
      return new XMLSerializer().serializeToString(found).replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, "");
    };
    for (const page of all.flatMap(part => part.pages)) page.found = await article(page.url, address);
    await startMathJax();
    for (const page of all.flatMap(part => part.pages)) {
      const found = document.importNode(page.found, true);
      await mathml(found);
      for (const summary of found.querySelectorAll("summary:has(p)")) summary.textContent = text(summary.querySelector("p"));
      for (const node of found.querySelectorAll("*")) {
        for (const {name} of [...node.attributes]) if (/^(data-|border$|tabindex$)/.test(name)) node.removeAttribute(name);
      }
      page.name = name(page.url);
      page.body = xhtml(found, page.url);
      page.properties = ["math", "svg"].filter(kind => found.querySelector(kind)).map(kind => kind.replace("math", "mathml"));
      page.errors = found.querySelectorAll("merror").length;
      delete page.found;
    }
    return {title, author, front: xhtml(front(edition), root.href), parts: all, images: [...images]};
  }

  // The cover takes the place of the page whose logo `chapters` needs: it comes after.
  return {chapters, cover: edition => document.body.replaceChildren(front(edition))};
})();
