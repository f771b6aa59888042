// The log, live: the newest rows are asked for again every three seconds while the page is looked at.
"use strict";
(() => {
  const box = document.getElementById("live");
  if (!box) return;
  const rows = document.getElementById("rows");
  const state = document.getElementById("live-state");
  let timer = 0;
  box.closest("p").hidden = false;

  const isBusy = () => rows.contains(document.activeElement) || rows.querySelector("details[open]");

  async function look() {
    let words = "";
    try {
      const answer = await fetch(box.dataset.rows, { redirect: "manual" });
      if (!answer.ok) throw new Error(answer.status);
      const text = await answer.text();
      // What somebody reads stays as it is.
      if (box.checked && !isBusy()) rows.replaceChildren(...parsed(text));
    } catch {
      words = box.dataset.failure;
    }
    if (state.textContent !== words) state.textContent = words;
    if (box.checked) timer = setTimeout(document.hidden ? wait : look, 3000);
  }

  function wait() {
    timer = setTimeout(document.hidden ? wait : look, 3000);
  }

  function parsed(text) {
    const table = new DOMParser().parseFromString(`<table><tbody>${text}</tbody></table>`, "text/html");
    return [...table.querySelector("tbody").children].map((row) => document.importNode(row, true));
  }

  box.addEventListener("change", () => {
    clearTimeout(timer);
    if (box.checked) look();
  });
})();
