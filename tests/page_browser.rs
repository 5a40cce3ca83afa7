//! The cluster page in a real browser: the story from an empty cluster to a drained node, an agent that restarts, and a
//! big cluster. Skipped, loudly, where there is no chromium with its driver.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "page_support/browser.rs"]
mod browser;
mod page_support;

use browser::Browser;
use page_support::{deploy, http, link_of};
use peer::shell::agent::Dashboard;
use peer::shell::demo::Demo;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

fn cards(more: &str) -> String {
    format!("document.querySelectorAll('.task{more}').length")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_from_empty_to_drained() {
    let Some(browser) = Browser::start(1280, 900).await else { return };
    let demo = Demo::start(3).await.unwrap();
    demo.wait_formed(3).await.unwrap();
    let (addr, token) = link_of(&demo, 1);
    browser.open(&format!("http://{addr}/#token={token}")).await;

    browser.until("three ready nodes", "document.querySelectorAll('.node[data-status=ready]').length === 3").await;
    browser
        .until(
            "the empty state that teaches",
            "document.querySelector('.empty').innerText.includes('peer service create')",
        )
        .await;
    assert_eq!(browser.eval("return location.hash").await, "#/", "the token doesn't stay in the address bar");
    browser
        .until(
            "one leader",
            "[...document.querySelectorAll('.mark')].filter(m => m.innerText === 'leader').length === 1",
        )
        .await;
    browser.screenshot("1-empty").await;

    deploy(&demo, 3).await;
    browser.until("three running cards", &format!("{} === 3", cards("[data-state=running]"))).await;
    browser.until("no empty state", "document.querySelector('.empty').offsetParent === null").await;
    browser.screenshot("2-running").await;

    // Scale, from the service's page, with the command that does the same shown.
    browser.click("nav a[data-view=services]").await;
    browser.until("the table", "document.querySelector('tbody tr')?.innerText.includes('3/3')").await;
    browser.click("tbody a").await;
    browser.until("the service's page", "document.querySelector('form[aria-label=Scale]')").await;
    browser.enter("form[aria-label=Scale] input", "5").await;
    browser
        .until(
            "the command",
            "document.querySelector('form[aria-label=Scale] code').innerText === 'peer service scale greeters=5'",
        )
        .await;
    browser.click("form[aria-label=Scale] button").await;
    browser
        .until(
            "five tasks run",
            "[...document.querySelectorAll('tbody .state-good')].filter(c => c.innerText === 'running').length === 5",
        )
        .await;

    // A new image, by keyboard alone from the image's field on.
    browser.enter("form[aria-label='Update the image'] input", "demo/greeter:2").await;
    browser.press(TAB).await;
    browser.until("the button has the focus", "document.activeElement.innerText === 'Update'").await;
    browser.press(ENTER).await;
    browser
        .until("old and new are told apart, or it is done", "seen.s.values().next().value.image.endsWith(':2')")
        .await;
    browser.open(&format!("http://{addr}/#/")).await;
    let new = "[...document.querySelectorAll('.task')].filter(t => t.dataset.state === 'running' && t.innerText.includes('greeter:2')).length === 5";
    browser.until("five new ones run", new).await;
    browser.screenshot("3-updated").await;

    // A bad image pauses it, and the page says why.
    browser.open(&format!("http://{addr}/#/service/greeters")).await;
    browser.until("the form", "document.querySelector(\"form[aria-label='Update the image'] input\")").await;
    browser.enter("form[aria-label='Update the image'] input", "demo/greeter:bad").await;
    browser.click("form[aria-label='Update the image'] button").await;
    browser
        .until(
            "paused, with the reason",
            "document.querySelector('[data-part=about]').innerText.includes('paused: update paused due to failure')",
        )
        .await;
    browser
        .until("the failure's words", "document.querySelector('[data-part=tasks]').innerText.includes('non-zero exit')")
        .await;
    browser.screenshot("4-paused").await;
    browser.click("form[aria-label='Roll back'] button").await;
    browser.until("rolled back", "document.querySelector('[data-part=about]').innerText.includes('demo/greeter:2') && document.querySelector('[data-part=about]').innerText.includes('completed')").await;
    browser.click("[data-part=past] button").await;
    browser
        .until(
            "the difference between revisions",
            "document.querySelector('[data-part=past] pre')?.innerText.includes('Image')",
        )
        .await;

    // Drain a node.
    browser.open(&format!("http://{addr}/#/node/node3")).await;
    browser.until("the node's page", "document.querySelector(\"form[aria-label='Make it drain']\")").await;
    browser.click("form[aria-label='Make it drain'] button").await;
    browser.open(&format!("http://{addr}/#/")).await;
    let drained = "[...document.querySelectorAll('.node')].some(n => n.dataset.availability === 'drain' && n.querySelectorAll('.task').length === 0)";
    browser.until("an empty, drained node", drained).await;
    browser.until("five run elsewhere", new).await;
    browser.screenshot("5-drained").await;

    // What happened to the service, and what its greeters say.
    browser.open(&format!("http://{addr}/#/service/greeters")).await;
    let event = |text: &str| format!("document.querySelector('[data-part=events]')?.innerText.includes('{text}')");
    browser.until("the drain's moves", &event("task create")).await;
    browser.until("the rollback, as an event", &event("rollout")).await;
    browser.click("[data-part=logs] button").await;
    browser
        .until(
            "the last lines",
            r"/greeters\.\d.* \| ./.test(document.querySelector('[data-part=logs] pre')?.innerText)",
        )
        .await;
    browser.screenshot("6-service").await;

    // Whom the node hears whose page this is, and how it hears another one.
    browser.open(&format!("http://{addr}/#/node/node2")).await;
    let heard = "[...document.querySelectorAll('[data-part=network] tbody tr')].filter(r => r.innerText.includes('ms') && r.innerText.includes('none'))";
    browser.until("both others, heard of late", &format!("{heard}.length === 2")).await;
    browser.screenshot("7-network").await;
    browser.open(&format!("http://{addr}/#/node/node1")).await;
    browser.until("the one", &format!("{heard}.length === 1")).await;

    // Who votes and who holds the lease.
    browser.click("nav a[data-view=electorate]").await;
    browser
        .until("the holder", "document.querySelector('main').innerText.includes(\"holds the scheduler's lease\")")
        .await;
    assert_eq!(browser.errors(None).await, Vec::<String>::new());
    assert_eq!(findings(&browser).await, Vec::<String>::new());
    demo.end().await;
}

/// What somebody who can't see, or sees badly, or uses no mouse would stumble on: what axe and its like look for and a script can
/// judge (names, roles, structure, contrast, sizes), by the rules of WCAG 2.2 AA.
async fn findings(browser: &Browser) -> Vec<String> {
    let script = r#"
        const found = [];
        const named = (e) => (e.innerText || e.getAttribute("aria-label") || e.closest("label")?.innerText || "").trim();
        const seen = (e) => e.offsetParent !== null && e.getClientRects().length > 0;
        const short = (e) => e.outerHTML.slice(0, 100);
        for (const e of document.querySelectorAll("a, button, input")) if (!named(e)) found.push("nameless: " + short(e));
        for (const e of document.querySelectorAll("input")) if (!e.labels.length) found.push("no label: " + short(e));
        for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) found.push("no alt: " + short(e));
        if (!document.documentElement.lang) found.push("no language");
        if (!document.title) found.push("no title");
        if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
        if (document.querySelectorAll("main").length !== 1) found.push("not one main");
        for (const e of document.querySelectorAll("nav")) if (!e.getAttribute("aria-label")) found.push("nav without a name");
        if (document.querySelectorAll("nav [aria-current=page]").length > 1) found.push("two pages are current");
        const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
        if (new Set(ids).size !== ids.length) found.push("an id stands twice");
        for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) found.push("tabindex above 0: " + short(e));
        for (const e of document.querySelectorAll("ul, ol")) if ([...e.children].some((c) => c.tagName !== "LI")) found.push("a list of something else: " + short(e));
        let level = 1;
        for (const e of [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen)) {
            const next = Number(e.tagName[1]);
            if (next > level + 1 && !e.closest("[aria-label]")) found.push(`h${next} under h${level}: ` + short(e));
            level = next;
        }
        for (const e of [...document.querySelectorAll("table")].filter(seen)) {
            if (!e.querySelector("th")) found.push("a table without headers: " + short(e));
            for (const th of e.querySelectorAll("th")) if (!th.scope) found.push("a header of nothing: " + short(th));
        }
        const roles = ["alert", "status", "region", "img", "list", "group"];
        for (const e of document.querySelectorAll("[role]")) if (!roles.includes(e.getAttribute("role"))) found.push("role: " + short(e));
        for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
            for (const id of (e.getAttribute("aria-labelledby") || e.getAttribute("aria-describedby")).split(" "))
                if (!document.getElementById(id)) found.push("refers to nothing: " + short(e));
        for (const e of document.querySelectorAll("[aria-hidden=true]")) if (e.querySelector("a, button, input")) found.push("hidden and focusable: " + short(e));
        // 24 pixels, or a line of text.
        for (const e of [...document.querySelectorAll("button, input")].filter(seen)) {
            const box = e.getBoundingClientRect();
            if (box.height < 24 || box.width < 24) found.push(`${box.width}x${box.height}: ` + short(e));
        }
        // What scrolls is reached by the keyboard: it has the focus itself, or something in it.
        for (const e of [...document.querySelectorAll("main *")].filter(seen)) {
            const style = getComputedStyle(e);
            const scrolls = (/auto|scroll/.test(style.overflowX) && e.scrollWidth > e.clientWidth + 1) || (/auto|scroll/.test(style.overflowY) && e.scrollHeight > e.clientHeight + 1);
            if (scrolls && e.tabIndex < 0 && !e.querySelector("a, button, input")) found.push("scrolls, without the keyboard: " + short(e));
        }
        const light = (c) => c.map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const rgb = (text) => text.match(/[\d.]+/g).map(Number);
        const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
        for (const e of document.querySelectorAll("main *, header *")) {
            if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.offsetParent) continue;
            const [a, b] = [rgb(getComputedStyle(e).color), ground(e)].map((c) => light(c.slice(0, 3)));
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(1)}: ${short(e)}`);
        }
        return found;
    "#;
    let mut found: Vec<String> = serde_json::from_value(browser.eval(script).await).unwrap();
    // And as a screen reader is told: the browser's own tree of names and roles.
    browser.devtools("Accessibility.enable", json!({})).await;
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({})).await;
    for node in tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true) {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let name = node["name"]["value"].as_str().unwrap_or_default();
        let speaks = [
            "button",
            "link",
            "textbox",
            "spinbutton",
            "heading",
            "navigation",
            "progressbar",
            "columnheader",
            "region",
        ];
        if speaks.contains(&role) && name.trim().is_empty() && role != "columnheader" {
            found.push(format!("a {role} that a screen reader has no name for: {node}"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_finds_its_agent_again_after_a_restart() {
    let Some(browser) = Browser::start(800, 700).await else { return };
    let mut demo = Demo::start(2).await.unwrap();
    demo.wait_formed(2).await.unwrap();
    let (addr, token) = link_of(&demo, 1);
    demo.configs[1].dashboard = Dashboard::On(addr);
    browser.open(&format!("http://{addr}/#token={token}")).await;
    browser.until("two nodes", "document.querySelectorAll('.node[data-status=ready]').length === 2").await;
    demo.kill(1).await;
    browser.until("the page says so", "document.getElementById('link').dataset.state === 'lost'").await;
    deploy(&demo, 2).await;
    demo.restart(1).await.unwrap();
    browser.until("it is live again", "document.getElementById('link').dataset.state === 'live'").await;
    browser.until("and knows what happened meanwhile", &format!("{} === 2", cards("[data-state=running]"))).await;
    // The token was kept, on both sides.
    browser.open(&format!("http://{addr}/#/service/greeters")).await;
    browser.until("the form", "document.querySelector('form[aria-label=Scale] input')").await;
    browser.enter("form[aria-label=Scale] input", "1").await;
    browser.click("form[aria-label=Scale] button").await;
    browser
        .until(
            "one replica is wanted",
            "document.querySelector('[data-part=about]').innerText.includes('1 of 1 running')",
        )
        .await;
    assert_eq!(browser.errors(Some("/live")).await, Vec::<String>::new());
    demo.end().await;
}

const NODES: usize = 200;
const TASKS: usize = 5_000;

fn big_world() -> Map<String, Value> {
    let mut world = Map::from_iter([(
        "c".to_owned(),
        json!({"id": "c", "self": "n0", "created": 0, "holder": {"node": "n0", "term": 1}, "voters": ["n0"], "epoch": 1, "quorum": true, "disk": null}),
    )]);
    for n in 0..NODES {
        let node = json!({"id": format!("n{n}"), "name": format!("node{n}"), "status": "ready", "availability": "active", "addr": "10.0.0.1:7373",
            "engine": "28.0", "agent": "0.1.0", "trouble": null, "cpus": 8_000_000_000u64, "memory": 17_179_869_184u64, "labels": {}, "blocked": {},
            "joined": 0, "holder": n == 0, "voter": n == 0});
        world.insert(format!("n/n{n}"), node);
    }
    for s in 0..50 {
        let service = json!({"id": format!("s{s}"), "name": format!("service{s}"), "mode": "replicated", "replicas": 100, "running": 100, "desired": 100,
            "image": "demo/greeter:1", "ports": [], "rollout": null, "pending": null, "previous": false, "parallelism": 1, "order": "stop-first",
            "cpu": 100_000_000, "memory": 0, "updated": 0});
        world.insert(format!("s/s{s}"), service);
    }
    for t in 0..TASKS {
        world.insert(format!("t/t{t}"), big_task(t, "running"));
    }
    world
}

fn big_task(t: usize, phase: &str) -> Value {
    json!({"id": format!("t{t}"), "service": format!("s{}", t % 50), "slot": t / 50 + 1, "node": format!("n{}", t % NODES), "image": "demo/greeter:1",
        "desired": "running", "phase": phase, "attempt": 0, "error": null, "note": null, "since": 0, "current": true})
}

/// Serves the page's own files, and a stream that was made up.
async fn serve_big_world(listener: TcpListener) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut request = [0u8; 4096];
            let count = socket.read(&mut request).await.unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..count]).lines().next().unwrap_or_default().to_owned();
            let file = |kind: &str, text: &str| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
            };
            let answer = match line.split(' ').nth(1) {
                Some("/") => file("text/html; charset=utf-8", include_str!("../src/shell/page/assets/page.html")),
                Some("/page.css") => file("text/css", include_str!("../src/shell/page/assets/page.css")),
                Some("/page.js") => file("text/javascript", include_str!("../src/shell/page/assets/page.js")),
                Some("/live") => {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
                    let picture = format!("{head}event: picture\ndata: {}\n\n", Value::Object(big_world()));
                    if socket.write_all(picture.as_bytes()).await.is_err() {
                        return;
                    }
                    // One task after the other fails and runs again, each change stamped with the time of sending.
                    for t in (0..TASKS).cycle() {
                        for phase in ["failed", "running"] {
                            let sent =
                                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
                            let mut task = big_task(t, phase);
                            task["error"] = json!(format!("sent at {sent}"));
                            let change = format!("event: change\ndata: {}\n\n", json!({format!("t/t{t}"): task}));
                            if socket.write_all(change.as_bytes()).await.is_err() {
                                return;
                            }
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                    }
                    return;
                }
                _ => "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let _ = socket.write_all(answer.as_bytes()).await;
        });
    }
}

/// What it takes is printed, not judged: the machine may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_nodes_with_five_thousand_tasks_are_shown_and_kept_up_with() {
    let Some(browser) = Browser::start(1600, 1200).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(serve_big_world(listener));
    assert_eq!(http(addr, "GET", "/nothing", None, None).await.0, 404);
    browser.open(&format!("http://{addr}/")).await;
    browser.until("all cards", &format!("{} === {TASKS}", cards(""))).await;
    assert_eq!(browser.eval("return document.querySelectorAll('.node').length").await, NODES);
    let paint = browser.eval("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime").await;
    // From when the agent sent a change to when the page has it drawn, over twenty changes.
    let watch = r#"
        window.took = [];
        new MutationObserver((changes) => {
            const now = Date.now();
            for (const c of changes) {
                const sent = /sent at (\d+)/.exec(c.target.textContent);
                if (sent) window.took.push(now - Number(sent[1]));
            }
        }).observe(document.querySelector("main"), { childList: true, characterData: true, subtree: true });
    "#;
    browser.eval(watch).await;
    browser.until("twenty changes", "window.took.length >= 20").await;
    let took = browser.eval("return window.took.sort((a, b) => a - b)").await;
    let took: Vec<f64> = serde_json::from_value(took).unwrap();
    println!(
        "{NODES} nodes, {TASKS} tasks: first paint after {paint} ms; a change is drawn {} ms after it was sent (median), {} ms at most",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    browser.screenshot("8-big").await;
    assert_eq!(browser.errors(None).await, Vec::<String>::new());
}
