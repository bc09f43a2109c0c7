// Messages about the selected photograph: its error, and the time it took.

const COLOURS = { decode: "#3d78c2", prepare: "#3f9a6d", infer: "#e4633c", color: "#d99a1c", encode: "#8a6bb8" };
const $ = (id) => document.getElementById(id);

/** Show a Problem; null hides it. */
export function showProblem(problem) {
  $("alarm").hidden = !problem;
  if (!problem) return;
  $("title").textContent = problem.title ?? "The page failed";
  $("detail").textContent = problem.detail ?? String(problem);
  $("request").textContent = problem.request ? `Request ${problem.request}` : "";
}

/** Show which model made an answer and how long each stage took; null hides it. */
export function showFacts(answer) {
  $("facts").hidden = !answer;
  if (!answer) return;
  const { stages, model, duration } = answer;
  const total = stages.reduce((sum, [, ms]) => sum + ms, 0);
  $("summary").textContent = `Colorized by ${model || "the server"} in ${Math.round(total)} ms; `
    + `${Math.round(duration)} ms including the transfer.${describePages(answer.pages)}`
    + (answer.dropped && ` Not kept of its metadata: ${answer.dropped}.`);
  $("bar").replaceChildren(...stages.map(([name, ms]) => paintBar(name, ms)));
  $("stages").replaceChildren(...stages.map(([name, ms]) => {
    const item = document.createElement("li");
    item.style.setProperty("--c", COLOURS[name] ?? "#888");
    const value = document.createElement("b");
    value.textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
    item.append(`${name} `, value);
    return item;
  }));
}

function describePages(pages) {
  const [read, all] = pages.split("/").map(Number);
  return all > 1 ? ` The photograph has ${all} pages; this picture has ${read}.` : "";
}

function paintBar(name, ms) {
  const part = document.createElement("span");
  part.style.flex = `${ms} 0 0`;
  part.style.setProperty("--c", COLOURS[name] ?? "#888");
  return part;
}

/** Say something to screen readers. */
export function announce(text) { $("status").textContent = text; }
