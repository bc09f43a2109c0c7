// The gray picture with a colour picture's lightness, as strength 0 returns it.

const MOST_PIXELS = 16e6; // of the gray picture; larger pictures are drawn smaller and stretched
const ROWS = 256; // per step, so that the page stays responsive
const SHADES = 4096;

/** IEC 61966-2-1. */
const LINEAR = Float32Array.from({ length: 256 }, (_, value) => {
  const share = value / 255;
  return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
});
const ENCODED = Uint8ClampedArray.from({ length: SHADES }, (_, index) => {
  const share = index / (SHADES - 1);
  return 255 * (share <= 0.0031308 ? 12.92 * share : 1.055 * share ** (1 / 2.4) - 0.055);
});

/**
 * Draw a picture in gray with the same L in CIE Lab, that is, the same luminance.
 * @param {HTMLImageElement} picture decoded
 * @param {HTMLCanvasElement} canvas
 */
export async function drawGray(picture, canvas) {
  const { naturalWidth, naturalHeight } = picture;
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (naturalWidth * naturalHeight)));
  canvas.width = Math.max(1, Math.round(naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(naturalHeight * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  for (let top = 0; top < canvas.height; top += ROWS) {
    const strip = context.getImageData(0, top, canvas.width, Math.min(ROWS, canvas.height - top));
    makeGray(strip.data);
    context.putImageData(strip, 0, top);
    await new Promise(requestAnimationFrame);
  }
}

function makeGray(pixels) {
  for (let i = 0; i < pixels.length; i += 4) {
    const luminance = 0.2126 * LINEAR[pixels[i]] + 0.7152 * LINEAR[pixels[i + 1]]
      + 0.0722 * LINEAR[pixels[i + 2]];
    pixels[i] = pixels[i + 1] = pixels[i + 2] = ENCODED[Math.round(luminance * (SHADES - 1))];
  }
}
