// A result of any shape: as a tree to read, as JSON, to copy and to keep.

import { byId, say } from "../lib/dom.js";
import { copyText, saveText } from "../lib/hand-over.js";
import { dataTree } from "./data-tree.js";

const MOST = 200_000; // characters of JSON that are shown; a browser gets slow beyond that

export class DataView {
  #text = "";
  #name = "";

  constructor() {
    byId("data-copy").addEventListener("click", () => this.#copy());
    byId("data-save").addEventListener("click", () => this.#save());
    for (const name of ["tree", "json"]) byId(`data-as-${name}`).addEventListener("change", () => this.#choose());
  }

  /** Offer `result` to be copied and kept; `isShown` says whether to show it here, too. */
  show(result, name, isShown) {
    this.#text = JSON.stringify(result, null, 2);
    this.#name = `${name}.json`;
    byId("data").hidden = !isShown;
    byId("data-tools").hidden = false;
    byId("data-views").hidden = !isShown;
    say(byId("data-status"), "");
    if (!isShown) return;
    byId("data-tree").replaceChildren(dataTree(result));
    const isCut = this.#text.length > MOST;
    byId("data-json").textContent = isCut ? `${this.#text.slice(0, MOST)}\n…` : this.#text;
    byId("data-cut").hidden = !isCut;
    byId("data-as-tree").checked = true;
    this.#choose();
  }

  close() {
    byId("data").hidden = true;
    byId("data-tools").hidden = true;
    byId("data-tree").replaceChildren();
    byId("data-json").textContent = "";
  }

  #choose() {
    const asTree = byId("data-as-tree").checked;
    byId("data-tree").hidden = !asTree;
    byId("data-json-box").hidden = asTree;
  }

  async #copy() {
    const isDone = await copyText(this.#text);
    say(byId("data-status"), isDone ? "Copied." : "The browser does not let this page copy. Download it instead.");
  }

  #save() {
    saveText(this.#name, "application/json", this.#text);
    say(byId("data-status"), `Saved as ${this.#name}.`);
  }
}
