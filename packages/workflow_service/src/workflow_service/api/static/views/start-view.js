// Where a run begins: a contract, any workflow, or one of the latest runs.

import { addressOf, addressOfRun } from "../lib/address.js";
import { byId, element } from "../lib/dom.js";
import { acceptDrops } from "../lib/drops.js";
import { explain, sentence } from "../lib/explain.js";
import { repeatWhileVisible } from "../lib/repeat.js";
import * as service from "../lib/service.js";
import { count, label, size } from "../lib/words.js";
import { ENDINGS, refusalOf } from "../form/files.js";
import { RunList } from "../run/run-list.js";

const ANALYSIS = "contract_analysis";
const LATEST = 5; // runs
const INTERVAL = 4_000; // ms between looks at runs that are not finished

export class StartView {
  #isBusy = false;
  #maxBytes = null;
  #leaving = new AbortController();
  #runs;
  #file = byId("file");
  #drop = byId("drop");

  /** `onRefused(problem)` hears of a key that is no longer accepted, `onTryAgain(run)` of a run to resume. */
  constructor(onRefused, onTryAgain) {
    this.onRefused = onRefused;
    this.#runs = new RunList(byId("latest"), onTryAgain);
    this.#file.accept = ENDINGS.join(",");
    this.#file.addEventListener("change", () => {
      const [file] = this.#file.files;
      this.#file.value = ""; // so that the same file can be chosen again
      if (file) this.#upload(file);
    });
    acceptDrops(this.#drop, (files) => {
      if (files.length > 1) this.#refuse("Please add one contract at a time.");
      else if (files.length === 1) this.#upload(files[0]);
    });
  }

  /** Load what is shown. */
  async open() {
    this.close();
    this.#leaving = new AbortController();
    const { signal } = this.#leaving;
    byId("upload-error").textContent = "";
    byId("start-error").textContent = "";
    await Promise.all(
      [this.#showWorkflows(signal), this.#showSamples(signal), this.#learnLimit(signal), this.#showNeeding(signal), this.#showRuns(signal)].map(
        (showing) => showing.catch((error) => this.#say(error, signal)),
      ),
    );
    await repeatWhileVisible(() => this.#refresh(signal), INTERVAL, signal);
  }

  /** Stop looking. */
  close() {
    this.#leaving.abort();
  }

  #say(error, signal) {
    if (signal.aborted) return;
    if (explain(error).status === 401) this.onRefused(error);
    else byId("start-error").textContent = sentence(error);
  }

  async #showWorkflows(signal) {
    const { workflows } = await service.listWorkflows(signal);
    byId("drop-box").hidden = !workflows.some(({ name }) => name === ANALYSIS);
    byId("workflows").replaceChildren(
      ...workflows.map(({ name, description }) =>
        element(
          "li",
          {},
          element("a", { href: addressOf(["workflow", name]) }, element("span", { class: "tile-title" }, label(name)), element("span", { class: "hint" }, description)),
        ),
      ),
    );
  }

  async #showSamples(signal) {
    const { samples } = await service.listSamples(signal);
    const buttons = samples.map(({ name }) => {
      const says = samples.length === 1 ? "Use the sample contract" : name;
      const button = element("button", { type: "button" }, says);
      button.addEventListener("click", () => this.#start("Taking the sample contract…", () => service.takeSample(name)));
      return button;
    });
    byId("samples-intro").hidden = buttons.length < 2;
    byId("samples").replaceChildren(...buttons);
  }

  async #learnLimit(signal) {
    this.#maxBytes = (await service.listDocuments({ limit: 1 }, signal)).max_bytes ?? null;
  }

  async #showNeeding(signal) {
    const { runs, next } = await service.listRuns({ status: "dead", limit: 20 }, signal);
    const dead = runs.filter(({ status }) => status === "dead");
    byId("needing").hidden = dead.length === 0;
    if (dead.length === 0) return;
    byId("needing-look").textContent = dead.length === 1 ? "Look at it" : "Look at them";
    const many = next === null ? count(dead.length, "run") : `More than ${count(dead.length, "run")}`;
    byId("needing-text").textContent = `${many} stopped after losing workers again and again, and ${dead.length === 1 ? "waits" : "wait"} for you.`;
  }

  async #showRuns(signal) {
    const { runs } = await service.listRuns({ limit: LATEST }, signal);
    this.#runs.update(runs);
    byId("latest-empty").hidden = runs.length > 0;
    byId("latest-all").hidden = runs.length === 0;
  }

  async #refresh(signal) {
    if (!this.#runs.isMoving) return;
    await this.#showRuns(signal).catch((error) => this.#say(error, signal));
  }

  #upload(file) {
    const refusal = refusalOf(file, this.#maxBytes);
    if (refusal !== null) return this.#refuse(refusal);
    return this.#start(`Uploading ${file.name} (${size(file.size)})…`, () => service.uploadDocument(file));
  }

  async #start(says, makeDocument) {
    if (this.#isBusy) return;
    this.#setBusy(says);
    try {
      const document = await makeDocument();
      const input = { document_id: document.document_id };
      const { run_id: id } = await service.execute(ANALYSIS, input, {}, service.newIdempotencyKey());
      location.hash = addressOfRun(id);
    } catch (error) {
      if (explain(error).status === 401) this.onRefused(error);
      else this.#refuse(sentence(error));
    } finally {
      this.#setBusy("");
    }
  }

  #setBusy(says) {
    this.#isBusy = says !== "";
    if (this.#isBusy) byId("upload-error").textContent = "";
    byId("upload-status").textContent = says;
    this.#drop.setAttribute("aria-busy", String(this.#isBusy));
    this.#file.disabled = this.#isBusy;
    for (const button of byId("samples").querySelectorAll("button")) button.disabled = this.#isBusy;
  }

  #refuse(text) {
    byId("upload-error").textContent = text;
  }
}
