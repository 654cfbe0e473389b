// What a person can do with a run: cancel it, let it go on, run it again, delete it.

import { addressOf } from "../lib/address.js";
import { byId, say } from "../lib/dom.js";
import { ask } from "../lib/dialog.js";
import { explain, sentence } from "../lib/explain.js";
import * as service from "../lib/service.js";
import { isFinal } from "./status.js";

const SAID = {
  drain: "The run ends after its present step.",
  interrupt: "The run is being interrupted.",
  rollback: "The run is being interrupted, and what it kept is removed.",
  kill: "The run is ended.",
};

export class Actions {
  #run = null;

  /**
   * `onChange(run)` hears of a run that was changed, `onStale()` of one that others changed, `onGone()` of one that is
   * deleted, `onRefused(problem)` of a key that is no longer accepted.
   */
  constructor({ onChange, onStale, onGone, onRefused }) {
    this.onChange = onChange;
    this.onStale = onStale;
    this.onGone = onGone;
    this.onRefused = onRefused;
    byId("run-cancel").addEventListener("click", () => this.#cancel());
    byId("run-resume").addEventListener("click", () => this.#resume());
    byId("run-delete").addEventListener("click", () => this.#delete());
  }

  /** Offer what the run can be asked for; null offers nothing. */
  show(run) {
    this.#run = run;
    const { status = "", can_cancel: canCancel = false, can_resume: canResume = false } = run ?? {};
    byId("run-cancel").hidden = !canCancel;
    byId("run-cancel").textContent = status === "cancelling" ? "Cancel in another way…" : "Cancel…";
    byId("run-resume").hidden = !canResume;
    byId("run-resume").textContent = status === "cancelled" ? "Go on where it stopped" : "Try again";
    byId("run-resume").classList.toggle("primary", status === "dead" || status === "failed");
    byId("run-delete").hidden = !isFinal(status);
    byId("run-again").hidden = run === null;
    if (run !== null) byId("run-again").href = addressOf(["workflow", run.workflow_name], ["from", run.id]);
    byId("run-actions").hidden = run === null;
  }

  /** Say nothing any more of what was asked for. */
  clear() {
    say(byId("run-said"), "");
    byId("run-refused").textContent = "";
  }

  async #cancel() {
    this.#offerModes();
    if ((await ask(byId("cancel-dialog"))) !== "cancel") return;
    const chosen = document.querySelector('#cancel-dialog input[name="mode"]:checked').value;
    await this.#do(() => service.cancelRun(this.#run.id, chosen), (run) => {
      say(byId("run-said"), SAID[chosen]);
      this.onChange(run);
    });
  }

  // A softer mode changes nothing for a run that is being cancelled already.
  #offerModes() {
    const modes = [...document.querySelectorAll('#cancel-dialog input[name="mode"]')];
    const at = this.#run.status === "cancelling" ? modes.findIndex(({ value }) => value === this.#run.cancel_mode) : -1;
    modes.forEach((mode, index) => { mode.disabled = index <= at && at < modes.length - 1; });
    modes[Math.min(at + 1, modes.length - 1)].checked = true;
  }

  async #resume() {
    await this.#do(() => service.resumeRun(this.#run.id), (run) => {
      say(byId("run-said"), "The run goes on.");
      this.onChange(run);
    });
  }

  async #delete() {
    if ((await ask(byId("delete-dialog"))) !== "delete") return;
    await this.#do(() => service.deleteRun(this.#run.id), () => this.onGone());
  }

  async #do(act, then) {
    this.clear();
    const buttons = ["run-cancel", "run-resume", "run-delete"].map(byId);
    for (const button of buttons) button.disabled = true;
    const { id } = this.#run;
    const isStillHere = () => this.#run?.id === id;
    try {
      const answer = await act();
      if (isStillHere()) then(answer);
    } catch (error) {
      if (explain(error).status === 401) this.onRefused(error);
      else if (isStillHere()) {
        byId("run-refused").textContent = sentence(error);
        if (error.status === 409) this.onStale();
      }
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  }
}
