// Keeps the site's files, so that it works without a network after the first visit. VERSION and FILES are written by `cargo lab site`.
const CACHE = 'moslim-lab-VERSION';
const FILES = [/*FILES*/];

addEventListener('install', (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
});

addEventListener('activate', (event) => {
  const old = (name) => name.startsWith('moslim-lab-') && name !== CACHE;
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter(old).map((name) => caches.delete(name)))));
});

addEventListener('fetch', (event) => {
  const scope = new URL(registration.scope);
  const url = new URL(event.request.url);
  if (event.request.method !== 'GET' || url.origin !== scope.origin || !url.pathname.startsWith(scope.pathname)) return;
  const path = url.pathname.slice(scope.pathname.length);
  if (event.request.mode === 'navigate') {
    // Pages have addresses that no file has.
    if (path !== '' && path !== 'index.html') {
      event.respondWith(Response.redirect(scope.href + '?at=' + encodeURIComponent('/' + path + url.search)));
      return;
    }
    event.respondWith(caches.match(scope.href, { cacheName: CACHE }).then((kept) => kept ?? fetch(event.request)));
    return;
  }
  event.respondWith(caches.match(event.request, { cacheName: CACHE }).then((kept) => kept ?? fetch(event.request)));
});
