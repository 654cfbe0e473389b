// Start of the page: who may look, which process is looked at, and what is shown of it.

import { byId, setText } from "./dom.js";
import { showIncidents } from "./incidents-view.js";
import { showLoops } from "./loops-view.js";
import { showProcesses, silence } from "./processes-view.js";
import { showStacks } from "./stacks-view.js";
import { showCalls, showJobs, showPools } from "./tables-view.js";
import { goToTasks, showTasks } from "./tasks-view.js";
import { currentToken, forgetToken, keepToken, readFragment, takeTokenFromAddress } from "./token.js";
import { follow, Refused } from "./stream.js";
import { showVerdict } from "./verdict-view.js";

let looking = new AbortController();
let paused = false;
let latest = null; // what was told last
let lastDetail = null; // of the process that is looked at, when it answered last

function route() {
  takeTokenFromAddress();
  looking.abort();
  looking = new AbortController();
  latest = lastDetail = null;
  if (currentToken() === null) return askForToken("");
  byId("view-token").hidden = true;
  byId("view-health").hidden = false;
  byId("pause").hidden = false;
  byId("told").hidden = true; // it is of another process
  byId("state").hidden = true;
  return look(readFragment().get("pid") ?? "", looking.signal);
}

async function look(pid, signal) {
  setText(byId("connection"), "Connecting…");
  try {
    for await (const told of follow(pid, currentToken(), (isUp) => showConnection(isUp), signal)) {
      latest = told;
      if (!paused) show(told);
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    forgetToken();
    askForToken(error.message);
  }
}

function show({ processes, process }) {
  showProcesses(processes, process?.pid);
  const banner = byId("state");
  const words = process === null ? "No process of yours has a started health monitor: start_event_loop_monitoring() starts it." : silence(process);
  banner.hidden = words === null;
  setText(banner, words === null ? "" : lastDetail === null ? words : `${words} What is shown below is how it was before.`);
  if (process === null || process.state !== "answered") return;
  lastDetail = process;
  byId("told").hidden = false;
  document.title = `${process.report.status}: ${process.pid} · homeloop`;
  showVerdict(process.report);
  showLoops(process, goToTasks);
  showStacks(process);
  showJobs(process);
  showTasks(process);
  showPools(process.report);
  showCalls(process.report);
  showIncidents(process.report);
}

function showConnection(isUp) {
  byId("connection").dataset.up = String(isUp);
  setText(byId("connection"), isUp ? (paused ? "Paused" : "Live") : "Connection lost, trying again…");
}

function askForToken(error) {
  byId("view-health").hidden = true;
  byId("pause").hidden = true;
  byId("view-token").hidden = false;
  setText(byId("connection"), "");
  setText(byId("token-error"), error);
  byId("token").setAttribute("aria-invalid", String(error !== ""));
  byId("token").focus();
}

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token");
  if (field.value.trim() === "") return askForToken("Please enter the token.");
  keepToken(field.value);
  field.value = "";
  return route();
});
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  setText(byId("pause"), paused ? "Go on" : "Pause");
  showConnection(true);
  if (!paused && latest !== null) show(latest);
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment names the process, not a place in the page
  byId("verdict").focus();
});
byId("threads-fold").addEventListener("toggle", () => { if (lastDetail !== null) showStacks(lastDetail); });
window.addEventListener("hashchange", route);
route();
