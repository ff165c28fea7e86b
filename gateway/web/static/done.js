new BroadcastChannel("sallyport").postMessage(document.currentScript.dataset.subject);
close();
