// Where the lab lies, and the stored theme, are known before the first paint of the page itself.
const root = document.documentElement;
root.dataset.base = new URL('.', import.meta.url).pathname;
try {
  const theme = localStorage.getItem('moslim-theme');
  if (['light', 'dark', 'contrast'].includes(theme)) root.dataset.theme = theme;
} catch { /* storage may be switched off; the theme then follows the system */ }

if (root.dataset.source === 'tab') {
  // A static host knows one address: what was asked for beside it stands behind the question mark.
  const at = new URLSearchParams(location.search).get('at');
  const inside = at !== null && /^\/(?!\/)/.test(at);
  if (inside || location.pathname.endsWith('/index.html')) {
    history.replaceState(null, '', root.dataset.base.slice(0, -1) + (inside ? at : '/'));
  }
  navigator.serviceWorker?.register(new URL('./sw.js', import.meta.url)).catch(() => { /* it works with a network, then */ });
}

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
