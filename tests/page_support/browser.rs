//! A real browser, driven by the WebDriver protocol (W3C recommendation of 2018): Debian's chromium and its driver.

use crate::page_support::{PATIENCE, http};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tokio::time::Instant;

pub struct Browser {
    driver: Child,
    addr: SocketAddr,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With all the processes of its browser.
        if let Some(group) = Pid::from_raw(self.driver.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// `None`, loudly, where there is no browser.
    pub async fn start(width: u32, height: u32) -> Option<Self> {
        let mut command = Command::new("chromedriver");
        let command = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let driver = command.spawn();
        let Ok(mut driver) = driver else {
            eprintln!(
                "SKIPPED: the page was not tried in a browser: chromedriver is missing (apt-get install chromium-driver)"
            );
            return None;
        };
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse::<u16>().ok())
            .expect("the driver says its port");
        let mut browser = Self { driver, addr: ([127, 0, 0, 1], port).into(), session: String::new() };
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
                     format!("--window-size={width},{height}")],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.call("POST", "/session", wanted).await;
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = http(self.addr, method, path, None, (method == "POST").then_some(body)).await;
        let mut answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {path}: {e}: {answer}"));
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["value"].take()
    }

    pub async fn open(&self, url: &str) {
        self.call("POST", &format!("{}/url", self.session), json!({"url": url})).await;
    }

    /// What the function's body returns in the page.
    pub async fn eval(&self, body: &str) -> Value {
        self.call("POST", &format!("{}/execute/sync", self.session), json!({"script": body, "args": []})).await
    }

    /// What the browser's own tools answer (the DevTools protocol).
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({"cmd": command, "params": params});
        self.call("POST", &format!("{}/goog/cdp/execute", self.session), body).await
    }

    /// Until the expression is true in the page.
    pub async fn until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        let script = format!("return Boolean({expression})");
        while self.eval(&script).await != true {
            if Instant::now() > deadline {
                let text = self.eval("return document.body.innerText").await;
                panic!("waited for {what}; the page says:\n{}", text.as_str().unwrap_or_default());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn element(&self, css: &str) -> String {
        let found = self
            .call("POST", &format!("{}/element", self.session), json!({"using": "css selector", "value": css}))
            .await;
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        format!("{}/element/{id}", self.session)
    }

    pub async fn click(&self, css: &str) {
        let element = self.element(css).await;
        self.call("POST", &format!("{element}/click"), json!({})).await;
    }

    /// In place of what stood there, key by key.
    pub async fn enter(&self, css: &str, text: &str) {
        let element = self.element(css).await;
        self.call("POST", &format!("{element}/clear"), json!({})).await;
        self.call("POST", &format!("{element}/value"), json!({"text": text})).await;
    }

    /// To whatever has the focus, as somebody without a mouse would.
    pub async fn press(&self, key: &str) {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.call("POST", &format!("{}/actions", self.session), actions).await;
    }

    /// Kept beside the build's other output.
    pub async fn screenshot(&self, name: &str) {
        use base64::Engine;
        let image = self.call("GET", &format!("{}/screenshot", self.session), Value::Null).await;
        let image = base64::engine::general_purpose::STANDARD.decode(image.as_str().unwrap()).unwrap();
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.png")), image).unwrap();
    }

    /// Errors in the console since the last call, but for those that contain `excused`.
    pub async fn errors(&self, excused: Option<&str>) -> Vec<String> {
        let log = self.call("POST", &format!("{}/se/log", self.session), json!({"type": "browser"})).await;
        let severe =
            log.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE" || line["level"] == "WARNING");
        let lines = severe.map(|line| line["message"].as_str().unwrap_or_default().to_owned());
        lines.filter(|line| excused.is_none_or(|excused| !line.contains(excused))).collect()
    }
}
