// The stored theme is applied before the first paint of the page itself.
try {
  const theme = localStorage.getItem('moslim-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch { /* storage may be switched off; the theme then follows the system */ }

import('./moslim.js').then(({ default: init }) => {
  return init({ module_or_path: new URL('./moslim_bg.wasm', import.meta.url) });
}).catch((error) => {
  const box = document.getElementById('boot');
  if (!box) return;
  box.setAttribute('role', 'alert');
  document.getElementById('boot-text').textContent =
    'The page could not start: ' + error +
    '. It needs a browser with WebAssembly. Reload to try again; runs on the server go on without the page.';
});
