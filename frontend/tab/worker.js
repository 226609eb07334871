// Starts the engine in this worker: as the desk, or, if its name says so, as the trainer.
import init from './moslim-tab.js';
await init({ module_or_path: new URL('./moslim-tab_bg.wasm', import.meta.url) });
