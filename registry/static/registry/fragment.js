// A page of one object that changes: shows the new state of a live message at once, then fetches the part of the page that changes.

import { announce, showLocalTimes } from "./page.js";

export class Fragment {
  /** place: the element with the part that changes. title(): of the document, after each change. */
  constructor(place, title) {
    Object.assign(this, { place, title, shown: Number(place.dataset.sequence), reading: false, again: false, parts: new Map() });
  }

  /** The live message has the state for pill and sentence. */
  showStatus(status) {
    const template = document.querySelector(`template[data-pill="${CSS.escape(status)}"]`);
    if (!template) return;
    this.place.querySelector("[data-pill-here]").replaceChildren(template.content.cloneNode(true));
    this.place.querySelector("[data-sentence-here]").textContent = template.dataset.sentence;
  }

  async fetch() {
    if (this.reading) { this.again = true; return; }
    this.reading = true;
    do {
      this.again = false;
      try {
        const response = await fetch(location.href, { headers: { "HX-Request": "true" } });
        if (response.ok) this.show(await response.text());
      } catch { /* offline: the state is shown, the rest follows with the next message */ }
    } while (this.again);
    this.reading = false;
  }

  show(html) {
    const fragment = document.createElement("template");
    fragment.innerHTML = html;
    const sequence = Number(fragment.content.querySelector("[data-sequence]").dataset.sequence);
    if (sequence < this.shown) { this.again = true; return; }
    this.shown = sequence;
    const before = keys(this.place);
    for (const node of fragment.content.querySelectorAll("[data-key]")) {
      if (!before.has(node.dataset.key)) node.classList.add("fresh");
    }
    const parts = [...fragment.content.querySelectorAll("[data-part]")];
    if (parts.length === 0) this.replace(this.place, fragment.content);
    // The page may have something between the parts that stays, such as a form.
    else for (const part of parts) this.replace(this.place.querySelector(`[data-part="${part.dataset.part}"]`), part);
    announce(this.place.querySelector("[data-sentence-here]").textContent);
    document.title = this.title();
  }

  /** Replace the content of `element` by that of `fresh`, unless only relative times differ: whoever selects text there keeps it. */
  replace(element, fresh) {
    const text = [...fresh.childNodes].map((node) => node.outerHTML ?? "").join("").replace(/(<time[^>]* data-ago="">)[^<]*/g, "$1");
    if (this.parts.get(element) === text) return;
    this.parts.set(element, text);
    const { copy, keep } = element.contains(document.activeElement) ? document.activeElement.dataset : {};
    element.replaceChildren(...fresh.childNodes);
    if (copy) element.querySelector(`[data-copy="${CSS.escape(copy)}"]`)?.focus();
    if (keep) element.querySelector(`[data-keep="${CSS.escape(keep)}"]`)?.focus();
    showLocalTimes();
  }

  /** The word of the state that is shown. */
  get word() {
    return this.place.querySelector("[data-pill-here] .pill").lastChild.textContent;
  }
}

function keys(parent) {
  return new Set([...parent.querySelectorAll("[data-key]")].map((node) => node.dataset.key));
}
