// The palette of another picture, in the editor of colours.
//
// The server extracts it. Only the palette is kept and saved, so that edits can be repeated without
// that picture.

const LONG_SIDE = 512; // pixels of the copy that is sent; the server uses fewer

export const PALETTE_MARKUP = `
  <div class="palette">
    <button type="button" class="small" data-do="reference">Take the colours of another picture</button>
    <div hidden>
      <div class="swatches" role="img"></div>
      <label>Strength of the palette <output></output><input type="range" min="0" max="1" step="0.05" data-value="palette_strength"></label>
      <button type="button" class="small" data-do="forget">Remove this palette</button>
    </div>
    <input type="file" accept="image/*" hidden data-file="reference" aria-label="Picture whose colours are taken">
  </div>`;

/** Show the palette (a list of #rrggbb) in the element of PALETTE_MARKUP. */
export function showPalette(element, palette) {
  const swatches = element.querySelector(".swatches");
  swatches.parentElement.hidden = !palette.length;
  swatches.setAttribute("aria-label", `Palette: ${palette.join(", ")}`);
  swatches.replaceChildren(...palette.map((color) => {
    const swatch = Object.assign(document.createElement("span"), { className: "swatch", title: color });
    swatch.style.background = color;
    return swatch;
  }));
}

/**
 * Get a picture's palette from the server.
 * @param {File} file
 * @param {function(Object): Promise<Object|null>} propose requests candidates with these fields
 * @param {function(Blob, number): Promise<Blob>} shrink
 * @returns {Promise<string[]|null>} null: it failed, and the error is shown
 */
export async function readPalette(file, propose, shrink) {
  // The server may read formats that the browser cannot show.
  const reference = await shrink(file, LONG_SIDE).catch(() => file);
  const found = await propose({ reference, size: 64 });
  return found && found.candidates[0].edits.palette;
}
