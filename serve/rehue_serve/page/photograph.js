// A photograph in the queue, its settings, and the answers received for it.

const KEPT_ANSWERS = 4; // per photograph, the newest
const SUFFIXES = { "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/tiff": "tif" };
const SHOWN_FORMATS = ["jpeg", "png", "webp"]; // TIFF is shown by few browsers

export class Photograph {
  /**
   * @param {File} file
   * @param {Object} settings model, strength (0 to 2), format and mark, as in the API
   */
  constructor(file, settings) {
    this.file = file;
    this.settings = { ...settings };
    this.edits = {}; // from the editor, as parameters of the API
    this.isShowable = null; // whether the browser can show the file; null: not tried yet
    this.state = "waiting"; // sending, colorizing, done, failed, cancelled
    this.note = "waiting"; // the state in words
    this.problem = null;
    this.answers = new Map(); // by `getKey` of their request
  }

  get isBusy() { return ["waiting", "sending", "colorizing"].includes(this.state); }

  get name() { return this.file.name || "photograph"; }

  /** The request whose answer is the file to download. */
  get fileRequest() { return { ...this.settings, ...this.edits }; }

  /** Strength to blend the answer with; an edited answer already includes its strength. */
  get blend() { return this.isEdited ? 1 : this.settings.strength; }

  get isEdited() { return Object.keys(this.edits).length > 0; }

  /**
   * The request whose answer is shown. Strengths from 0 to 1 are blended from the answer at 1, and
   * JPEG replaces a format that the browser cannot show.
   */
  get viewRequest() {
    const { format, strength } = this.settings;
    const isShown = format === "auto" ? this.isShowable : SHOWN_FORMATS.includes(format);
    const asked = this.isEdited ? strength : Math.max(1, strength);
    return { ...this.settings, ...this.edits, strength: asked, format: isShown ? format : "jpeg" };
  }

  getAnswer(request) { return this.answers.get(getKey(request)); }

  /** The answer to show, in any format that the browser shows. */
  findView() {
    const wanted = this.viewRequest;
    return this.getAnswer(wanted) ?? [...this.answers.values()].findLast(
      ({ request, picture }) => picture.type !== "image/tiff"
        && getKey({ ...request, format: wanted.format }) === getKey(wanted));
  }

  addAnswer(request, answer) {
    this.answers.set(getKey(request), { ...answer, request });
    if (this.answers.size <= KEPT_ANSWERS) return;
    // The answer at strength 1 serves all lower strengths, so it is kept longest.
    const [oldest] = [...this.answers].find(([, { request: { strength } }]) => strength > 1)
      ?? this.answers.entries().next().value;
    this.answers.delete(oldest);
  }

  /** Return to the settings of the newest answer; keep the chosen format. */
  restoreSettings() {
    const { model, strength, mark } = [...this.answers.values()].at(-1).request;
    this.settings = { ...this.settings, model, strength, mark };
  }

  /** Name the download after the photograph and the picture's actual format. */
  nameDownload(picture) {
    const stem = this.name.replace(/\.[^.]*$/, "") || "photograph";
    return `${stem}-colour.${SUFFIXES[picture.type] ?? "img"}`;
  }
}

/** Identify a request: equal requests have equal answers. */
export function getKey(request) {
  return JSON.stringify(Object.entries(request).sort());
}
