// The page: a queue of photographs, one of which is shown.

import { Editor, buildParameters } from "./editor.js";
import { offerSamples, receiveFiles } from "./files.js";
import { PhotographList } from "./list.js";
import { announce, showFacts, showProblem } from "./notices.js";
import { Options } from "./options.js";
import { Photograph } from "./photograph.js";
import { Requests } from "./requests.js";
import { Viewer } from "./viewer.js";
import { buildZip } from "./zip.js";

const $ = (id) => document.getElementById(id);

const options = new Options($("options"));
const requests = new Requests(() => options.key);
const editor = new Editor(() => options.key);
const viewer = new Viewer($("viewer"));
const list = new PhotographList($("photographs"), { select, remove });
let photographs = [];
let selected = null;
let leftOut = 0; // files of folders that are not photographs
let isPacking = false;
let openedFrom = null; // the element with the focus when photographs were opened; the result takes it

// --- the queue

async function open(files, others) {
  leftOut += others;
  if (!files.length) {
    showProblem({ title: "No photographs found", detail: `The folder has ${others} other files.` });
    $("again").hidden = true;
    return;
  }
  const added = files.map((file) => new Photograph(file, options.settings));
  photographs.push(...added);
  for (const photograph of added) list.add(photograph);
  openedFrom = document.activeElement;
  select(added[0]);
  for (const photograph of added) {
    photograph.isShowable = await list.drawThumbnail(photograph, photograph.file);
    const isWanted = photographs.includes(photograph) && photograph.state !== "cancelled";
    if (isWanted) colorize(photograph, photograph === selected);
  }
}

function select(photograph) {
  selected = photograph;
  list.markSelected(photograph);
  options.settings = photograph.settings;
  $("start").hidden = true;
  $("more").hidden = false;
  if (!viewer.shows(photograph)) viewer.hide();
  // Its settings may have changed with those of all photographs.
  if (photograph.state === "done") colorize(photograph, true);
  else show(photograph);
}

function remove(photograph) {
  requests.cancel(photograph);
  const index = photographs.indexOf(photograph);
  photographs = photographs.filter((other) => other !== photograph);
  list.remove(photograph);
  showQueue();
  if (!photographs.length) reset();
  else if (photograph === selected) select(photographs[Math.min(index, photographs.length - 1)]);
}

function reset() {
  selected = null;
  viewer.hide();
  showProblem(null);
  showFacts(null);
  for (const id of ["unseen", "busy", "download", "edit", "more"]) $(id).hidden = true;
  $("start").hidden = false;
  document.querySelector("#drop [data-choose]").focus();
}

// --- colorize and show

/** Request the picture to show, unless there is one already. */
async function colorize(photograph, first = false) {
  if (photograph.findView()) {
    show(photograph);
    return;
  }
  try {
    const answer = await requests.ask(photograph, photograph.viewRequest, { first });
    list.drawThumbnail(photograph, answer.picture);
  } catch { /* the photograph's state shows the error */ }
}

/** Show a photograph's state: its picture, its progress or its error. */
function show(photograph) {
  list.update(photograph);
  showQueue();
  if (photograph !== selected) return;
  const answer = photograph.findView();
  $("busy").hidden = !photograph.isBusy;
  $("progress").textContent = answer ? `making the file: ${photograph.note}` : photograph.note;
  $("download").hidden = $("edit").hidden = !answer;
  $("unseen").hidden = true;
  viewer.isStale = !answer;
  showFacts(answer);
  if (photograph.isBusy || photograph.state === "done") showProblem(null);
  else showFailure(photograph);
  if (answer) showAnswer(photograph, answer);
  else if (photograph.isShowable) viewer.show(photograph);
}

async function showAnswer(photograph, answer) {
  viewer.setStrength(photograph.blend);
  const isShown = await viewer.show(photograph, answer);
  if (photograph !== selected) return;
  $("unseen").hidden = isShown;
  $("unseen").textContent = "Your browser cannot show this picture. It is ready to download.";
  moveFocus(isShown ? viewer.frame : $("download"));
}

function showFailure(photograph) {
  const { problem } = photograph;
  $("unseen").hidden = viewer.shows(photograph) || photograph.isShowable || photograph.findView();
  $("unseen").textContent = "Your browser cannot show this photograph.";
  showProblem(problem ?? { title: "Cancelled", detail: "This photograph was not colorized." });
  $("again").hidden = false;
  if (problem?.status === 401) options.askForKey();
  else moveFocus($("alarm"));
}

/** Move the focus to a result or an error once, unless the user has moved it elsewhere. */
function moveFocus(element) {
  const { activeElement, body } = document;
  if (!openedFrom) return;
  if (activeElement === body || activeElement === openedFrom) element.focus();
  openedFrom = null;
}

function showQueue() {
  const count = (state) => photographs.filter((photograph) => photograph.state === state).length;
  const [done, failed] = [count("done"), count("failed")];
  const text = [
    `${done} of ${photographs.length} done`, failed && `${failed} failed`,
    leftOut && `${leftOut} other ${leftOut === 1 ? "file" : "files"} left out`,
  ];
  $("queue").hidden = photographs.length < 2;
  options.hasSeveral = photographs.length > 1;
  $("count").textContent = text.filter(Boolean).join(", ");
  $("stop").hidden = !photographs.some((photograph) => photograph.isBusy);
  $("download-all").disabled = !done || isPacking;
  if (!requests.inProgress && photographs.length) announce($("count").textContent);
}

// --- edit

async function edit() {
  const photograph = selected;
  const picture = photograph.isShowable ? photograph.file : photograph.findView().picture;
  const { model, strength } = photograph.settings;
  const start = { ...photograph.document, strength };
  const found = await editor.open(picture, start, { model, name: photograph.name.replace(/\.[^.]*$/, "") });
  if (!found) return;
  photograph.document = found;
  const { strength: chosen = 1, ...edits } = buildParameters(found);
  photograph.edits = edits;
  photograph.settings = { ...photograph.settings, strength: chosen };
  if (photograph === selected) options.settings = photograph.settings;
  colorize(photograph, photograph === selected);
}

// --- download

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Get the file to download: the picture that is shown, or a new one in the chosen format and strength. */
function getFile(photograph) {
  return requests.ask(photograph, photograph.fileRequest, { first: true });
}

async function download() {
  const photograph = selected;
  try {
    const { picture } = await getFile(photograph);
    save(picture, photograph.nameDownload(picture));
  } catch { /* the photograph's state shows the error */ }
}

async function downloadAll() {
  isPacking = true;
  showQueue();
  const chosen = photographs.filter((photograph) => photograph.answers.size);
  const files = [];
  await Promise.allSettled(chosen.map(async (photograph) => {
    const { picture } = await getFile(photograph);
    files.push({ name: photograph.nameDownload(picture), blob: picture });
  }));
  try {
    save(await buildZip(files), "rehue.zip");
  } catch (error) {
    showProblem({ title: "The ZIP file could not be made", detail: error.message });
  }
  isPacking = false;
  showQueue();
}

/** Cancel all photographs that are not done, also those that were not requested yet. */
function stop() {
  requests.cancel();
  for (const photograph of photographs.filter(({ state }) => state === "waiting")) {
    Object.assign(photograph, { state: "cancelled", note: "cancelled" });
    show(photograph);
  }
}

/** Cancel the selected photograph's requests; an earlier picture stays, with its settings. */
function cancel() {
  requests.cancel(selected);
  if (!selected.answers.size) return;
  selected.restoreSettings();
  options.settings = selected.settings;
  colorize(selected);
}

// --- wiring

/** Apply the form's settings to the selected photograph or all. */
function changeSettings() {
  if (!selected) return;
  for (const photograph of options.isForAll ? photographs : [selected]) {
    photograph.settings = { ...photograph.settings, ...options.settings };
  }
}

requests.addEventListener("change", ({ detail }) => show(detail));
options.addEventListener("strength", () => {
  changeSettings();
  if (selected?.findView()) show(selected);
});
options.addEventListener("change", () => {
  changeSettings();
  if (!selected) return;
  if (!selected.findView()) requests.cancel(selected); // the requested pictures are no longer needed
  colorize(selected, true);
});
options.addEventListener("key", () => {
  for (const photograph of photographs) {
    if (photograph.problem?.status === 401) colorize(photograph, photograph === selected);
  }
});
$("again").addEventListener("click", () => {
  openedFrom = $("again");
  if (selected.findView()) download(); // only its file failed
  else colorize(selected, true);
});
$("cancel").addEventListener("click", cancel);
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => [...photographs].forEach(remove));
$("edit").addEventListener("click", edit);
$("download").addEventListener("click", download);
$("download-all").addEventListener("click", downloadAll);

receiveFiles(open);
offerSamples(open);
options.listModels();
