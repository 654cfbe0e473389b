// A field for a document: a file to upload, one that was uploaded before, or a sample.

import { button, element, say } from "../lib/dom.js";
import { acceptDrops } from "../lib/drops.js";
import { sentence } from "../lib/explain.js";
import * as service from "../lib/service.js";
import { size, time } from "../lib/words.js";
import { Field } from "./field.js";
import { ENDINGS, refusalOf } from "./files.js";

const SAMPLE = "sample:"; // before the names of samples among the values to choose from

export class DocumentField extends Field {
  #chosen = null; // its record
  #isWalking = false; // through the closed list, by keys
  #pending = null; // what is on its way to the service
  #leaving = new AbortController();
  #maxBytes = null;
  #next = null;
  #records = new Map(); // document id: its record, of those to choose from

  constructor(options) {
    super(options);
    this.file = element("input", { type: "file", class: "visually-hidden", id: `${this.id}-file`, accept: ENDINGS.join(",") });
    this.earlier = element("optgroup", { label: "Uploaded before" });
    this.samples = element("optgroup", { label: "Samples of the service" });
    this.choice = element("select", { "aria-label": `${this.title}: choose an earlier one or a sample` });
    this.older = button("Show older ones", { class: "quiet", hidden: true }, () => this.#list(this.#next));
    this.status = element("p", { class: "chosen", role: "status" });
    this.again = button("Choose another", { class: "quiet", hidden: true }, () => this.#clear());
    this.pick = element("label", { for: this.file.id, class: "button" }, "Choose a file");
    const box = element(
      "div",
      { class: "picker", role: "group", tabindex: "-1", "aria-label": this.title },
      element("div", { class: "row" }, this.status, this.again),
      element("div", { class: "row offers" }, this.file, this.pick, this.choice, this.older),
    );
    this.element = this.frame(box);
    this.#hear(box);
    this.#show();
    this.#load();
  }

  label() {
    return element("span", { class: "label" }, this.title, this.isRequired ? null : element("span", { class: "optional" }, " (optional)"));
  }

  read() {
    return this.#chosen?.document_id;
  }

  write(id) {
    this.#chosen = id ? { document_id: id, filename: "", size: null } : null;
    this.#show();
    if (id) this.#name(id);
  }

  state() {
    return this.#chosen;
  }

  restore(record) {
    this.#chosen = record ?? null;
    this.#show();
  }

  check() {
    if (this.#pending !== null) return this.complain("The file is still being uploaded.");
    return this.complain(this.isRequired && this.#chosen === null ? "Choose a document." : null);
  }

  focus() {
    if (this.#chosen === null) this.file.focus();
    else this.again.focus();
  }

  async settle() {
    await this.#pending;
  }

  leave() {
    this.#leaving.abort();
  }

  #hear(box) {
    acceptDrops(box, (files) => {
      if (files.length > 1) this.complain("One file at a time, please.");
      else if (files.length === 1) this.#upload(files[0]);
    });
    this.file.addEventListener("change", () => {
      const [file] = this.file.files;
      this.file.value = ""; // so that the same file can be chosen again
      if (file) this.#upload(file);
    });
    // With the list closed, each arrow key chooses what it comes by. Nobody means all of these: what stands there
    // is taken by Enter, or by going on.
    this.choice.addEventListener("keydown", (event) => this.#walk(event));
    this.choice.addEventListener("keyup", () => (this.#isWalking = false));
    this.choice.addEventListener("change", () => (this.#isWalking ? this.#offer() : this.#take()));
    this.choice.addEventListener("blur", () => this.#take());
  }

  #upload(file) {
    const refusal = refusalOf(file, this.#maxBytes);
    if (refusal !== null) return this.complain(refusal);
    return this.#fetch(`Uploading ${file.name} (${size(file.size)})…`, () => service.uploadDocument(file, this.#leaving.signal));
  }

  #walk(event) {
    this.#isWalking = !["Enter", " ", "Tab", "Escape"].includes(event.key) && !event.altKey;
    if (event.key !== "Enter" || this.choice.value === "") return;
    event.preventDefault();
    this.#take();
  }

  #offer() {
    const isOne = this.choice.value !== "";
    say(this.status, isOne ? `Enter takes ${this.choice.selectedOptions[0].textContent}` : "");
  }

  #take() {
    const { value } = this.choice;
    if (value === "") return;
    this.choice.value = ""; // so that the same one can be chosen again
    if (value.startsWith(SAMPLE)) {
      const name = value.slice(SAMPLE.length);
      this.#fetch(`Taking ${name}…`, () => service.takeSample(name, this.#leaving.signal));
    } else {
      this.#choose(this.#records.get(value));
    }
  }

  async #fetch(says, get) {
    this.complain(null);
    const hadFocus = this.#hasFocus(); // what has it is hidden meanwhile
    this.#pending = (async () => {
      try {
        return await get();
      } catch (error) {
        if (!this.#leaving.signal.aborted) this.complain(sentence(error));
        return null;
      }
    })();
    this.#show(says);
    const record = await this.#pending;
    this.#pending = null;
    if (record === null) this.#show();
    else this.#choose(record, hadFocus);
    if (record === null && hadFocus) this.file.focus();
  }

  #hasFocus() {
    return this.element.contains(document.activeElement);
  }

  #choose(record, hadFocus = this.#hasFocus()) {
    this.#chosen = record;
    this.complain(null);
    this.#show();
    const isFree = [null, document.body].includes(document.activeElement); // nobody took it meanwhile
    if (this.#hasFocus() || (hadFocus && isFree)) this.again.focus();
    this.element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  #clear() {
    this.#chosen = null;
    this.#show();
    this.file.focus();
    this.element.dispatchEvent(new Event("change", { bubbles: true }));
  }

  #show(says = null) {
    const { filename, size: bytes } = this.#chosen ?? {};
    const named = [filename || "A document chosen before", bytes ? size(bytes) : null].filter(Boolean).join(" · ");
    say(this.status, says ?? (this.#chosen === null ? "" : named));
    const isOpen = this.#chosen === null && says === null;
    for (const offer of [this.file, this.pick]) offer.hidden = !isOpen;
    this.choice.hidden = !isOpen || this.choice.options.length < 2;
    this.older.hidden = !isOpen || this.#next === null;
    this.again.hidden = this.#chosen === null || says !== null;
    this.status.classList.toggle("is-chosen", this.#chosen !== null && says === null);
  }

  // Without the lists a file can still be uploaded, and what is wrong will be said then.
  async #load() {
    this.choice.replaceChildren(element("option", { value: "" }, "Or an earlier one, or a sample…"));
    await Promise.all([this.#list(null), this.#listSamples()].map((listing) => listing.catch(() => {})));
    this.#show(this.#pending === null ? null : this.status.textContent);
  }

  async #list(before) {
    const page = await service.listDocuments({ before }, this.#leaving.signal);
    this.#maxBytes = page.max_bytes ?? null;
    this.#next = page.next;
    for (const record of page.documents) {
      this.#records.set(record.document_id, record);
      const name = `${record.filename} · ${time(record.created_at)}`;
      this.earlier.append(element("option", { value: record.document_id }, name));
    }
    if (this.earlier.children.length > 0) this.choice.options[0].after(this.earlier); // whichever list came first
    this.older.hidden = this.choice.hidden || this.#next === null;
  }

  async #listSamples() {
    const { samples } = await service.listSamples(this.#leaving.signal);
    this.samples.replaceChildren(...samples.map(({ name }) => element("option", { value: SAMPLE + name }, name)));
    if (samples.length > 0) this.choice.append(this.samples);
  }

  async #name(id) {
    try {
      const record = await service.getDocument(id, this.#leaving.signal);
      if (this.#chosen?.document_id !== id) return;
      this.#chosen = record;
      this.#show();
    } catch (error) {
      if (!this.#leaving.signal.aborted) this.complain(sentence(error));
    }
  }
}
