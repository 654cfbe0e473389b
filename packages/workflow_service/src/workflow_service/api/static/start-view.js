// Where an analysis begins: upload, sample contracts and earlier runs.

import { byId, element } from "./dom.js";
import { explain, sentence } from "./explain.js";
import * as service from "./service.js";
import { label, size, time } from "./words.js";

const ENDINGS = [".pdf", ".docx", ".md", ".txt"];
const MAX_BYTES = 20 * 1024 * 1024;

export class StartView {
  #busy = false;
  #cursor = null;
  #names = new Map(); // run id: name of its document
  #file = byId("file");
  #drop = byId("drop");

  /** `onRun(id)` hears of each run that was started; `onRefused(problem)` of a key that is no longer accepted. */
  constructor(onRun, onRefused) {
    this.onRun = onRun;
    this.onRefused = onRefused;
    this.#file.accept = ENDINGS.join(",");
    this.#file.addEventListener("change", () => {
      const [file] = this.#file.files;
      this.#file.value = ""; // so that the same file can be chosen again
      if (file) this.#upload(file);
    });
    byId("runs-more").addEventListener("click", () => this.#showRuns(this.#cursor));
    this.#acceptDrops();
  }

  /** Load the samples and the earlier runs. */
  async open() {
    byId("upload-error").textContent = "";
    await Promise.all([this.#showSamples(), this.#showRuns(null)]);
  }

  #acceptDrops() {
    // On the whole window: a file that misses the box would otherwise replace the page.
    window.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      this.#drop.classList.add("over");
    });
    window.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) this.#drop.classList.remove("over");
    });
    window.addEventListener("drop", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      this.#drop.classList.remove("over");
      if (byId("view-start").hidden) return;
      const { files } = event.dataTransfer;
      if (files.length > 1) this.#refuse("Please add one contract at a time.");
      else if (files.length === 1) this.#upload(files[0]);
    });
  }

  #upload(file) {
    const ending = (/\.[^.]+$/.exec(file.name) ?? [""])[0].toLowerCase();
    if (!ENDINGS.includes(ending)) {
      return this.#refuse(`“${file.name}” cannot be read. Use a PDF, Word (DOCX), Markdown (.md) or text (.txt) file.`);
    }
    if (file.size === 0) return this.#refuse(`“${file.name}” is empty. Choose another file.`);
    if (file.size > MAX_BYTES) {
      return this.#refuse(
        `“${file.name}” is too large: ${size(file.size)}, and at most ${size(MAX_BYTES)} can be read. ` +
          "Split it, or save it with smaller images.",
      );
    }
    return this.#start(`Uploading ${file.name} (${size(file.size)})…`, () => service.uploadDocument(file));
  }

  async #start(says, makeDocument) {
    if (this.#busy) return;
    this.#setBusy(says);
    try {
      const document = await makeDocument();
      const { run_id: id } = await service.analyse(document.document_id);
      this.onRun(id);
    } catch (error) {
      if (explain(error).status === 401) this.onRefused(error);
      else this.#refuse(sentence(error));
    } finally {
      this.#setBusy("");
    }
  }

  #setBusy(says) {
    this.#busy = says !== "";
    if (this.#busy) byId("upload-error").textContent = "";
    byId("upload-status").textContent = says;
    this.#drop.setAttribute("aria-busy", String(this.#busy));
    this.#file.disabled = this.#busy;
    for (const button of byId("samples").querySelectorAll("button")) button.disabled = this.#busy;
  }

  #refuse(text) {
    byId("upload-error").textContent = text;
  }

  async #showSamples() {
    let samples;
    try {
      ({ samples } = await service.listSamples());
    } catch (error) {
      if (explain(error).status === 401) this.onRefused(error);
      return; // the list of runs fails for the same reason and says so
    }
    const buttons = samples.map(({ name }) => {
      const says = samples.length === 1 ? "Use the sample contract" : name;
      const button = element("button", { type: "button" }, says);
      button.addEventListener("click", () => this.#start("Taking the sample contract…", () => service.takeSample(name)));
      return button;
    });
    byId("samples-intro").hidden = buttons.length < 2;
    byId("samples").replaceChildren(...buttons);
  }

  async #showRuns(cursor) {
    let page;
    try {
      page = await service.listRuns(cursor);
    } catch (error) {
      if (explain(error).status === 401) this.onRefused(error);
      else this.#refuse(sentence(error));
      return;
    }
    const items = page.runs.map((run) => this.#runItem(run));
    if (cursor === null) byId("runs").replaceChildren(...items);
    else byId("runs").append(...items);
    if (cursor !== null) items[0]?.querySelector("a").focus();
    this.#cursor = page.next ?? null;
    byId("runs-more").hidden = this.#cursor === null;
    byId("runs-empty").hidden = byId("runs").children.length > 0;
  }

  #runItem(run) {
    const title = element("span", { class: "run-title" }, this.#names.get(run.id) ?? label(run.workflow_name));
    if (!this.#names.has(run.id)) this.#showName(run.id, title);
    return element(
      "li",
      {},
      element(
        "a",
        { href: `#run=${encodeURIComponent(run.id)}` },
        title,
        element("time", { datetime: run.created_at }, time(run.created_at)),
        element("span", { class: "status", "data-status": run.status }, label(run.status)),
      ),
    );
  }

  // The list of runs has no file names. Each is asked for once; without it the workflow's name stands there.
  async #showName(id, title) {
    try {
      const { input_data: input } = await service.getRun(id);
      const { filename } = await service.getDocument(input.document_id);
      this.#names.set(id, filename);
      title.textContent = filename;
    } catch (error) {
      if (!(error instanceof service.Problem)) throw error;
    }
  }
}
