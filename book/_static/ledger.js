// Filters of the ledger. What is chosen stands in the address after the #, so that it can be linked and kept.
"use strict";
const form = document.querySelector("form.ledger-filter");
const claims = [...document.querySelectorAll(".claim")];
const sections = [...document.querySelectorAll("section")].filter(s => !s.contains(form) && s.querySelector(".claim"));
const fields = [...form.querySelectorAll("select")];

function show() {
  const wanted = fields.filter(field => field.value).map(field => `${field.name}-${field.value}`);
  for (const claim of claims) claim.hidden = !wanted.every(name => claim.classList.contains(name));
  for (const section of sections) section.hidden = !section.querySelector(".claim:not([hidden])");
  form.querySelector("output").textContent = `${claims.filter(claim => !claim.hidden).length} of ${claims.length} claims`;
}

// An address names a choice, as #verdict=false&part=gates or after a ?, or a place such as #a05. A place that the
// choice would hide ends it.
function follow() {
  const { hash, search } = location;
  const place = !hash.includes("=") && document.getElementById(hash.slice(1));
  if (!place || place.closest("[hidden]")) {
    const choice = new URLSearchParams(place ? "" : hash.includes("=") ? hash.slice(1) : search);
    for (const field of fields) field.value = choice.get(field.name) ?? "";
  }
  show();
  if (place) place.scrollIntoView({ behavior: "instant" });
}

form.addEventListener("change", () => {
  show();
  const choice = new URLSearchParams(fields.filter(field => field.value).map(field => [field.name, field.value]));
  history.replaceState(null, "", `#${choice}`);
});
form.addEventListener("reset", () => setTimeout(() => { show(); history.replaceState(null, "", "#"); }));
form.addEventListener("submit", event => event.preventDefault());
addEventListener("hashchange", follow);
form.hidden = false;
follow();
