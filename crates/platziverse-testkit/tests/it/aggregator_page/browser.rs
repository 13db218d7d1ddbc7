//! A headless Chromium with one page, driven by its DevTools protocol.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use platziverse_testkit::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// One page in one process: memory is scarce where this runs. No sandbox, which needs rights that
/// containers do not give: the page is our own.
const ARGUMENTS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--renderer-process-limit=1",
    "--remote-debugging-port=0",
    "about:blank",
];

/// Where Chromium writes the port that it listens at, and the path.
const PORT_FILE: &str = "DevToolsActivePort";

/// A browser that ends with this.
pub(super) struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    session: String,
    last_id: u64,
    /// What the page threw, and what its policy refused.
    faults: Vec<Value>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Starts one that keeps its files in `folder`.
    pub(super) async fn start(folder: &Path) -> Self {
        let profile = folder.join("chromium");
        let log = std::fs::File::create(folder.join("chromium.log")).expect("a log");
        let child = Command::new("chromium")
            .args(ARGUMENTS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("chromium cannot be run: {error}. scripts/test installs it")
        });
        let port_file = profile.join(PORT_FILE);
        let listens = eventually("Chromium listens", PATIENCE, || async {
            let text = std::fs::read_to_string(&port_file).map_err(|error| error.to_string())?;
            let (port, path) = text.split_once('\n').ok_or("a port without a path")?;
            Ok((format!("127.0.0.1:{port}"), path.trim().to_owned()))
        });
        let (address, path) = listens.await;
        let stream = TcpStream::connect(&address).await.expect("Chromium accepts");
        let opened = client_async(format!("ws://{address}{path}"), stream).await;
        let (socket, _) = opened.expect("Chromium answers");
        let session = String::new();
        let mut browser = Self { child, socket, session, last_id: 0, faults: Vec::new() };
        let made = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": made["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Shows the page of that address.
    pub(super) async fn open(&mut self, url: &str) {
        let shown = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(shown.get("errorText").is_none(), "{url}: {shown}");
        let url = json!(url);
        self.until(&format!("document.readyState === 'complete' && location.href === {url}")).await;
    }

    /// What the expression is in the page.
    pub(super) async fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until the expression is true in the page.
    pub(super) async fn until(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.value(expression).await != true {
            if Instant::now() >= end {
                let page = self.value("document.body.innerText").await;
                let page = page.as_str().unwrap_or_default();
                panic!("not within {PATIENCE:?}: {expression}\n{page}\n{:?}", self.faults);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Clicks the button, or box, of that id.
    pub(super) async fn click(&mut self, id: &str) {
        self.until(&format!("document.getElementById('{id}')?.disabled === false")).await;
        self.value(&format!("document.getElementById('{id}').click()")).await;
    }

    /// Puts a text into the field of that id.
    pub(super) async fn fill(&mut self, id: &str, text: &str) {
        let text = json!(text);
        self.value(&format!("document.getElementById('{id}').value = {text}")).await;
    }

    /// What the page threw, and what its policy refused, so far.
    pub(super) fn faults(&self) -> &[Value] {
        &self.faults
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut call = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            call["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(call.to_string())).await.expect("Chromium listens");
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("Chromium answers");
            let heard = next.expect("Chromium runs").expect("Chromium answers");
            let Ok(text) = heard.to_text() else { continue };
            let mut heard: Value = serde_json::from_str(text).expect("Chromium says JSON");
            if heard["id"] == id {
                assert!(heard.get("error").is_none(), "{method}: {heard}");
                return heard["result"].take();
            }
            if is_fault(&heard) {
                self.faults.push(heard["params"].take());
            }
        }
    }
}

/// Sockets that cannot be opened are logged, too: they are no faults of the page.
fn is_fault(event: &Value) -> bool {
    let entry = &event["params"]["entry"];
    event["method"] == "Runtime.exceptionThrown"
        || (entry["level"] == "error" && entry["source"] != "network")
}
