// Starts the engine in this worker: as the desk, or as what its name says. Where that cannot be, whoever started it is told why.

// A function that adds up 128-bit lanes: valid where the browser has them.
const LANES = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11]);

function reason(error) {
  if (!WebAssembly.validate(LANES)) {
    return 'This browser has no WebAssembly SIMD (128-bit lanes), which the engine needs. Chrome 91, Firefox 89, Safari 16.4 and all later ones have it.';
  }
  if (error instanceof RangeError || /memory/i.test(String(error))) {
    return `The browser gives this tab no memory for the engine (${error}). Close other tabs, then reload this one.`;
  }
  return `The engine could not be loaded (${error}). Reload the page.`;
}

try {
  const { default: init } = await import('./moslim-tab.js');
  await init({ module_or_path: new URL('./moslim-tab_bg.wasm', import.meta.url) });
} catch (error) {
  postMessage(JSON.stringify({ failed: { message: reason(error) } }));
}
