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
use std::path::Path;
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
    // Resumed it fails as before.
    let resume = "form[aria-label='Resume the update']";
    assert_eq!(
        browser.eval(&format!("return document.querySelector(\"{resume} code\").innerText")).await,
        "peer service update greeters"
    );
    let started = browser.eval("return seen.s.values().next().value.rollout.started").await;
    browser.click(&format!("{resume} button")).await;
    let again = format!(
        "(({{ state, started }}) => state === 'paused' && started !== {started})(seen.s.values().next().value.rollout || {{}})"
    );
    browser.until("paused once more", &again).await;
    let paused = |within: &str| {
        format!("/paused: .* of 5 slots done, [1-9]\\d* failures?/.test(document.querySelector('{within}')?.innerText)")
    };
    browser.open(&format!("http://{addr}/#/services")).await;
    browser.until("the same in the table", &paused("tbody .state-bad")).await;
    browser.open(&format!("http://{addr}/#/")).await;
    browser.until("and above the board", &paused(".rollouts .state-bad")).await;
    browser.open(&format!("http://{addr}/#/service/greeters")).await;
    browser.until("the forms", "document.querySelector(\"form[aria-label='Roll back'] button\")").await;
    browser.click("form[aria-label='Roll back'] button").await;
    browser.until("rolled back", "document.querySelector('[data-part=about]').innerText.includes('demo/greeter:2') && document.querySelector('[data-part=about]').innerText.includes('completed')").await;
    browser.until("nothing to resume", &format!("document.querySelector(\"{resume}\").offsetParent === null")).await;
    browser.click("[data-part=past] button").await;
    browser
        .until(
            "the difference between revisions",
            "[...document.querySelectorAll('[data-part=past] pre')].some(p => /Image: .*:1[^]*Image: .*:2/.test(p.innerText))",
        )
        .await;
    browser
        .until(
            "what was left behind",
            "[...document.querySelectorAll('[data-part=past] h3')].filter(h => h.innerText.includes('(rolled back)')).length === 1",
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

    // Whom each node hears, by its own word, on one node's page.
    let heard = "[...document.querySelectorAll('[data-part=network] tbody tr')].filter(r => r.innerText.includes('ms') && r.innerText.includes('none'))";
    for (node, others) in [("node2", ["node1", "node3"]), ("node1", ["node2", "node3"]), ("node3", ["node1", "node2"])]
    {
        browser.open(&format!("http://{addr}/#/node/{node}")).await;
        let names = format!("{heard}.map(r => r.children[0].innerText).sort().join() === '{}'", others.join(","));
        browser.until("both others, heard of late", &names).await;
        let word = format!(
            "document.querySelector('[data-part=network]').innerText.includes('Whom {node} hears, by its own word')"
        );
        browser.until("whose word it is", &word).await;
    }
    browser
        .until(
            "and how this one hears it",
            "document.querySelector('[data-part=network]').innerText.includes('node2, whose page this is, heard it')",
        )
        .await;
    browser.screenshot("7-network").await;

    // How much of its machine each node uses.
    browser.open(&format!("http://{addr}/#/")).await;
    if cfg!(target_os = "linux") {
        let says = |what: &str| {
            format!(
                "[...document.querySelectorAll('.node .head')].filter(h => /{what}/.test(h.innerText)).length === 3"
            )
        };
        browser.until("memory in use", &says(r"memory [\d.]+ [MG]iB used of (the machine's )?[\d.]+ GiB")).await;
        browser.until("processors in use", &says(r"cpu [\d.]+ used of (the machine's )?[\d.]+")).await;
    }

    // Who votes, who holds the lease and since when, and how it went from one to another.
    browser.click("nav a[data-view=electorate]").await;
    browser
        .until(
            "the holder",
            "/holds the scheduler's lease since .*:.*, term \\d+/.test(document.querySelector('main').innerText)",
        )
        .await;
    browser
        .until("its terms", "/lease (acquire|electorate)/.test(document.querySelector('[data-part=events]').innerText)")
        .await;
    browser.screenshot("8-electorate").await;

    // Who comes without the token sees the same and can change nothing.
    let (other, _) = link_of(&demo, 0);
    browser.open(&format!("http://{other}/#/service/greeters")).await;
    browser
        .until("what to do", "document.querySelector('[data-part=acts]')?.innerText.includes('peer dashboard')")
        .await;
    let presses = "[...document.querySelectorAll('form button')]";
    assert_eq!(browser.eval(&format!("return {presses}.length > 2 && {presses}.every(b => b.disabled)")).await, true);
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

/// axe-core, as `scripts/test` fetches it from its registry. `None`, loudly, where it could not.
fn axe() -> Option<String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("axe").join("package/axe.min.js");
    let source = std::fs::read_to_string(&path).ok();
    if source.is_none() {
        eprintln!(
            "SKIPPED: the page was not tried with axe-core, only with our own rules: there is no {}",
            path.display()
        );
    }
    source
}

/// What axe finds wrong, of whatever impact.
async fn axe_findings(browser: &Browser, axe: &str) -> Vec<String> {
    let run = "return axe.run(document, { resultTypes: ['violations'] }).then((found) => found.violations.map(
        (v) => `${v.impact} ${v.id}: ${v.help}: ` + v.nodes.map((node) => node.html.slice(0, 120)).slice(0, 3).join(' ')))";
    serde_json::from_value(browser.eval(&format!("{axe};\n{run}")).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_can_be_read_and_used_in_light_and_dark_on_a_phone_and_without_a_mouse() {
    let Some(browser) = Browser::start(1280, 900).await else { return };
    let demo = Demo::start(2).await.unwrap();
    demo.wait_formed(2).await.unwrap();
    deploy(&demo, 2).await;
    let (addr, token) = link_of(&demo, 1);
    browser.open(&format!("http://{addr}/#token={token}")).await;
    browser.until("two running cards", &format!("{} === 2", cards("[data-state=running]"))).await;
    let axe = axe();
    let views = [
        ("", "document.querySelector('.task')"),
        ("services", "document.querySelector('tbody a')"),
        ("service/greeters", "document.querySelector('[data-part=events] tbody tr')"),
        ("node/node2", "document.querySelector('[data-part=network] tbody tr')"),
        ("electorate", "document.querySelector('tbody tr')"),
        ("events", "document.querySelector('[data-part=events] tbody tr')"),
    ];
    for scheme in ["light", "dark"] {
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", feature).await;
        for (view, drawn) in views {
            browser.eval(&format!("location.hash = '#/{view}'")).await;
            browser.until(view, drawn).await;
            // A card that has just come fades in.
            browser.until("all is still", "document.getAnimations().every((a) => a.playState !== 'running')").await;
            assert_eq!(findings(&browser).await, Vec::<String>::new(), "{scheme} #/{view}");
            if let Some(axe) = &axe {
                assert_eq!(axe_findings(&browser, axe).await, Vec::<String>::new(), "{scheme} #/{view}");
            }
        }
    }
    // On the narrowest screen, or four times as large, nothing but tables and listings scrolls sideways.
    let phone = json!({"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": true});
    browser.devtools("Emulation.setDeviceMetricsOverride", phone).await;
    for (view, drawn) in views {
        browser.eval(&format!("location.hash = '#/{view}'")).await;
        browser.until(view, drawn).await;
        let wide = browser.eval("return document.documentElement.scrollWidth - window.innerWidth").await;
        assert!(wide.as_i64().unwrap() <= 0, "#/{view} is {wide} pixels too wide for a phone");
        browser.screenshot(&format!("phone-{}", view.replace('/', "-"))).await;
    }
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;
    // By keyboard alone: everything that can be pressed is reached in the order of the page, and it shows where one is.
    // (Afresh: coming from another view the focus is on the new one's content.)
    browser.open("about:blank").await;
    browser.open(&format!("http://{addr}/#/service/greeters")).await;
    browser.until("the forms", "document.querySelector('form[aria-label=Scale] button')").await;
    browser.eval("document.activeElement.blur(); window.reached = []").await;
    let count = browser
        .eval("return [...document.querySelectorAll('a[href], button, input, [tabindex=\"0\"]')].filter((e) => e.getClientRects().length).length")
        .await
        .as_u64()
        .unwrap();
    for _ in 0..count {
        browser.press(TAB).await;
        let shown = browser
            .eval("const e = document.activeElement; window.reached.push(e); return getComputedStyle(e).outlineStyle !== 'none'")
            .await;
        assert_eq!(shown, true, "where one is: {}", browser.eval("return document.activeElement.outerHTML").await);
    }
    let reached = "new Set(window.reached.filter((e) => e.matches('a[href], button, input, [tabindex=\"0\"]'))).size";
    assert!(
        browser.eval(&format!("return {reached}")).await.as_u64().unwrap() + 1 >= count,
        "all but what came or went meanwhile"
    );
    let ordered = "window.reached.every((e, i) => !i || window.reached[i - 1].compareDocumentPosition(e) & 4 || e.matches('.skip'))";
    assert_eq!(browser.eval(&format!("return {ordered}")).await, true, "in the order of the page");
    assert_eq!(browser.errors(None).await, Vec::<String>::new());
    demo.end().await;
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
    let says = "/what you see is as of .*:.*; trying again/.test(document.getElementById('link').innerText)";
    browser
        .until("the page says so, and since when", &format!("document.body.dataset.link === 'lost' && {says}"))
        .await;
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

/// Three nodes, and a service amidst an update with a task in each state.
fn small_world() -> Map<String, Value> {
    let mut world = Map::from_iter([(
        "c".to_owned(),
        json!({"id": "c", "self": "n0", "created": 0, "holder": {"node": "n0", "term": 1}, "since": 0, "voters": ["n0"], "epoch": 1, "quorum": true, "disk": null}),
    )]);
    for (n, status) in ["ready", "suspect", "down"].into_iter().enumerate() {
        let node = json!({"id": format!("n{n}"), "name": format!("node{n}"), "status": status, "heard": (n > 0).then_some(1_700_000_000_000u64),
            "availability": if n == 0 { "active" } else { "drain" }, "addr": "10.0.0.1:7373", "engine": "28.0", "agent": "0.1.0", "trouble": null,
            "cpus": 8_000_000_000u64, "memory": 16u64 << 30, "labels": {"zone": format!("z{n}")}, "blocked": {}, "joined": 0, "holder": n == 0, "voter": n == 0});
        world.insert(format!("n/n{n}"), node);
    }
    world.insert("u/n0".to_owned(), json!({"cpu": [2_500, 8_000], "memory": [5u64 << 30, 16u64 << 30]}));
    // An engine in something smaller than its machine.
    world.insert("u/n1".to_owned(), json!({"cpu": null, "memory": [6u64 << 30, 64u64 << 30]}));
    let rollout = json!({"state": "updating", "message": "update in progress", "total": 8, "failed": 1, "started": 0});
    let service = json!({"id": "s0", "name": "web", "mode": "replicated", "replicas": 8, "running": 3, "desired": 8, "image": "shop:2", "ports": [],
        "rollout": rollout, "pending": null, "previous": true, "parallelism": 1, "order": "stop-first", "cpu": 500_000_000, "memory": 1u64 << 30, "updated": 0});
    world.insert("s/s0".to_owned(), service);
    let states = [
        ("running", "preparing"),
        ("running", "starting"),
        ("running", "running"),
        ("shutdown", "running"),
        ("running", "failed"),
    ];
    for (slot, (desired, phase)) in states.into_iter().enumerate() {
        let mut task = big_task(slot, phase);
        task["service"] = json!("s0");
        task["node"] = json!("n0");
        task["slot"] = json!(slot + 1);
        task["desired"] = json!(desired);
        task["current"] = json!(slot != 3);
        task["image"] = json!(if slot == 3 { "shop:1" } else { "shop:2" });
        world.insert(format!("t/t{slot}"), task);
    }
    world
}

fn big_world() -> Map<String, Value> {
    let mut world = Map::from_iter([(
        "c".to_owned(),
        json!({"id": "c", "self": "n0", "created": 0, "holder": {"node": "n0", "term": 1}, "since": 0, "voters": ["n0"], "epoch": 1, "quorum": true, "disk": null}),
    )]);
    for n in 0..NODES {
        world.insert(
            format!("u/n{n}"),
            json!({"cpu": [100 * (n % 80), 8_000], "memory": [(n as u64 % 16) << 30, 16u64 << 30]}),
        );
        let node = json!({"id": format!("n{n}"), "name": format!("node{n}"), "status": "ready", "heard": null, "availability": "active", "addr": "10.0.0.1:7373",
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

/// Serves the page's own files, and a stream that was made up: this world, in which `changing` tasks fail and run again by turns.
async fn serve_world(listener: TcpListener, world: Map<String, Value>, changing: usize) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let world = world.clone();
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
                    let picture = format!("{head}event: picture\ndata: {}\n\n", Value::Object(world));
                    if socket.write_all(picture.as_bytes()).await.is_err() {
                        return;
                    }
                    // One task after the other fails and runs again, each change stamped with the time of sending.
                    for t in (0..changing).cycle() {
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
                    // Nothing changes: the stream stays open until the page goes.
                    let _ = socket.read(&mut request).await;
                    return;
                }
                _ => "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let _ = socket.write_all(answer.as_bytes()).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_node_and_of_a_task_is_told_apart_also_without_colour() {
    let Some(browser) = Browser::start(1280, 900).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(serve_world(listener, small_world(), 0));
    browser.open(&format!("http://{addr}/")).await;
    browser.until("all cards", &format!("{} === 5", cards(""))).await;
    // A word for each state, and a motion for each that is no rest.
    let mut motions = std::collections::BTreeSet::new();
    for state in ["preparing", "starting", "running", "draining", "failed"] {
        let card = format!("document.querySelector('.task[data-state={state}]')");
        let text = browser.eval(&format!("return {card}.innerText")).await;
        assert!(text.as_str().unwrap().contains(state), "{state}: {text}");
        let style = format!("const s = getComputedStyle({card}); return s.animationName + ' ' + s.animationDuration");
        assert!(
            motions.insert(browser.eval(&style).await.as_str().unwrap().to_owned()),
            "{state} moves like another: {motions:?}"
        );
    }
    // Both versions of the update.
    for (age, tag, count) in [("old", "shop:1 (old)", 1), ("new", "shop:2 (new)", 4)] {
        let cards = format!(
            "[...document.querySelectorAll('.task[data-age={age}]')].filter(t => t.innerText.includes('{tag}')).length"
        );
        assert_eq!(browser.eval(&format!("return {cards}")).await, count, "{age}");
    }
    let head = |n: usize| {
        let browser = &browser;
        async move {
            let text = browser.eval(&format!("return document.querySelectorAll('.node .head')[{n}].innerText")).await;
            text.as_str().unwrap().to_owned()
        }
    };
    let (first, second, third) = (head(0).await, head(1).await, head(2).await);
    for text in [
        "leader",
        "this node",
        "engine 28.0",
        "zone=z0",
        "cpu 2.5 reserved, 2.5 used of 8.0",
        "memory 5.0 GiB reserved, 5.0 GiB used of 16.0 GiB",
    ] {
        assert!(first.contains(text), "{text} is missing in\n{first}");
    }
    // Who was heard when; and what a machine doesn't tell, or nobody knows any more, is not there.
    for (text, status) in [(&second, "suspect: no answer for a moment, last heard "), (&third, "down, last heard ")] {
        assert!(text.contains(status) && text.contains("2023") && text.contains("drain"), "{text}");
    }
    assert!(second.contains("memory 6.0 GiB used of the machine's 64.0 GiB") && !second.contains("cpu "), "{second}");
    assert!(!third.contains("used"), "{third}");
    browser.screenshot("states").await;
    assert_eq!(browser.errors(None).await, Vec::<String>::new());
    assert_eq!(findings(&browser).await, Vec::<String>::new());
}

/// What it takes is printed, not judged: the machine may be busy.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_nodes_with_five_thousand_tasks_are_shown_and_kept_up_with() {
    let Some(browser) = Browser::start(1600, 1200).await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(serve_world(listener, big_world(), TASKS));
    assert_eq!(http(addr, "GET", "/nothing", None, None).await.0, 404);
    browser.open(&format!("http://{addr}/")).await;
    browser.until("all cards", &format!("{} === {TASKS}", cards(""))).await;
    assert_eq!(browser.eval("return document.querySelectorAll('.node').length").await, NODES);
    let paint = browser.eval("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime").await;
    // From when the agent sent a change to when the page has it drawn, over forty changes; and what of that is the drawing.
    let watch = r#"
        window.took = [];
        window.drew = [];
        const draws = views;
        views = () => {
            const begun = performance.now();
            draws();
            window.drew.push(performance.now() - begun);
        };
        // What else keeps this page waiting: by how much its own clock is late.
        window.late = [];
        let due = performance.now() + 20;
        setInterval(() => {
            window.late.push(performance.now() - due);
            due = performance.now() + 20;
        }, 20);
        new MutationObserver((changes) => {
            const now = Date.now();
            for (const c of changes) {
                const sent = /sent at (\d+)/.exec(c.target.textContent);
                if (sent) window.took.push(now - Number(sent[1]));
            }
        }).observe(document.querySelector("main"), { childList: true, characterData: true, subtree: true });
    "#;
    browser.eval(watch).await;
    browser.until("forty changes", "window.took.length >= 40").await;
    let measured = |name: &'static str| {
        let browser = &browser;
        async move {
            let all = browser.eval(&format!("return window.{name}.sort((a, b) => a - b)")).await;
            let all: Vec<f64> = serde_json::from_value(all).unwrap();
            (all[all.len() / 2], all[all.len() - 1])
        }
    };
    let (took, drew, late) = (measured("took").await, measured("drew").await, measured("late").await);
    println!(
        "{NODES} nodes, {TASKS} tasks: first paint after {paint} ms; a change is drawn {} ms after it was sent (median; {} ms at most), \
         of which drawing takes {:.1} ms (median; {:.1} ms at most); meanwhile timers of the page were up to {:.0} ms late",
        took.0, took.1, drew.0, drew.1, late.1
    );
    browser.screenshot("9-big").await;
    // Only what changed was drawn, and none was lost: every card says what the picture says.
    browser
        .until(
            "all cards are right",
            "[...seen.t.values()].every((t) => document.querySelector(`[data-key=\"${t.id}\"]`).dataset.state === t.phase)",
        )
        .await;
    assert_eq!(browser.errors(None).await, Vec::<String>::new());
}
