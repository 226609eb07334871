// Starts the engine in this worker: as the desk, or as what its name says.
import init from './moslim-tab.js';
await init({ module_or_path: new URL('./moslim-tab_bg.wasm', import.meta.url) });
