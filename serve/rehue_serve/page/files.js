// Photographs from the file dialog, a folder, drag and drop or the clipboard.

const SUFFIX = /\.(jpe?g|png|webp|tiff?|hei[cf]|avif|jp2|gif)$/i;

/** Whether a file of a folder looks like a photograph. */
function isPhotograph(file) { return file.type.startsWith("image/") || SUFFIX.test(file.name); }

/**
 * Call `open(files, number left out)` for every choice, drop or paste.
 * Single files are always passed on; of folders, only those that look like photographs.
 */
export function receiveFiles(open) {
  const inputs = { files: document.querySelector("#files"), folder: document.querySelector("#folder") };
  for (const button of document.querySelectorAll("[data-choose]")) {
    button.addEventListener("click", () => inputs[button.dataset.choose].click());
  }
  inputs.files.addEventListener("change", () => openAndClear(inputs.files, (files) => open(files, 0)));
  inputs.folder.addEventListener("change", () => openAndClear(inputs.folder, (files) => openFolder(files, open)));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    openDropped(event.dataTransfer, open);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) open([...event.clipboardData.files], 0);
  });
}

function openAndClear(input, openFiles) {
  const files = [...input.files];
  input.value = ""; // so that choosing the same files again is a change
  if (files.length) openFiles(files);
}

function openFolder(files, open) {
  const photographs = files.filter(isPhotograph)
    .sort((a, b) => a.webkitRelativePath.localeCompare(b.webkitRelativePath));
  open(photographs, files.length - photographs.length);
}

async function openDropped(transfer, open) {
  // Entries must be taken before the first await: the transfer is emptied then.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) {
    open([...transfer.files], 0);
    return;
  }
  const files = (await Promise.all(entries.map(listFiles))).flat();
  const photographs = files.filter(isPhotograph);
  open(photographs, files.length - photographs.length);
}

async function listFiles(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const children = [];
  for (;;) { // a reader returns at most 100 entries per call
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) break;
    children.push(...part);
  }
  return (await Promise.all(children.map(listFiles))).flat();
}

/** Call `open` for a sample when it is clicked. */
export function offerSamples(open) {
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.addEventListener("click", async () => {
      const name = button.dataset.sample;
      const answer = await fetch(`page/samples/${name}`);
      open([new File([await answer.blob()], name, { type: "image/jpeg" })], 0);
    });
  }
}
