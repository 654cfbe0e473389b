// The processes of this user, and how each is: stopped ones cannot tell, but others can tell that they are.

import { byId, element, keepList, setAttribute, setText } from "./dom.js";
import { label } from "./words.js";

const STATES = { stopped: "stopped", silent: "does not answer", gone: "has ended" };

/** What is said of a process that does not answer; null if it does. */
export function silence(process) {
  const told = {
    stopped: `Process ${process.pid} is stopped (SIGSTOP, or a debugger): kill -CONT ${process.pid} lets it go on.`,
    silent: `Process ${process.pid} does not answer: something may hold the interpreter's lock. py-spy dump --pid ${process.pid} tells what.`,
    gone: `Process ${process.pid} has ended, or its monitor was stopped.`,
  };
  return told[process.state] ?? null;
}

/** Show the processes; `chosen` is the number of the one that is looked at. */
export function showProcesses(processes, chosen) {
  byId("processes").hidden = processes.length < 2 && processes.every((each) => each.pid === chosen);
  keepList(byId("process-list"), processes, (each) => String(each.pid), makeProcess, (item, each) => fillProcess(item.firstElementChild, each, chosen));
}

function makeProcess() {
  return element("li", {}, element("a", {}, element("span", { class: "state" }), element("span", { class: "name" }), element("span", { class: "command" })));
}

function fillProcess(link, process, chosen) {
  const [state, name, command] = link.children;
  const word = STATES[process.state] ?? process.status;
  setAttribute(link, "href", `#pid=${process.pid}`);
  setAttribute(link, "aria-current", process.pid === chosen ? "true" : null);
  setAttribute(state, "data-state", STATES[process.state] ? "blocked" : process.status);
  setText(state, label(word));
  setText(name, process.pid);
  setText(command, process.command);
}
