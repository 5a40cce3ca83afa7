use super::*;
use serde_json::json;

fn rendered(text: &str, top: &Value) -> Result<String, String> {
    let own = |name: &str, args: &[Value]| (name == "twice").then(|| Ok(json!(go_text(&args[0]).repeat(2))));
    Template::parse(text, &["twice"])?.render(&Data { top, nothing: "<no value>", strict: true, call: &own })
}

fn service() -> Value {
    json!({
        "Name": "web", "Replicas": 3, "Labels": { "tier": "front", "zone": "b" }, "Ports": ["80", "443"],
        "Update": { "State": "paused" }, "None": null, "Flat": "a=1,b=2",
    })
}

#[test]
fn what_people_write_is_filled_in_as_go_does_it() {
    for (text, want) in [
        ("plain }} text { {", "plain }} text { {"),
        ("{{.Name}} has {{ .Replicas }}", "web has 3"),
        ("{{.Update.State}}{{.Update.Nothing}}", "paused<no value>"),
        ("{{json .Update}} {{.Update}} {{.Ports}}", r#"{"State":"paused"} map[State:paused] [80 443]"#),
        (r#"{{join .Ports ", "}} {{.Name | upper | printf "%-5s|"}}"#, "80, 443 WEB  |"),
        (r#"{{range .Ports}}<{{.}}>{{end}}{{range $i, $p := .Ports}}{{$i}}={{$p}} {{end}}"#, "<80><443>0=80 1=443 "),
        (r#"{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{$.Name}};{{end}}"#, "tier:front web;zone:b web;"),
        (r#"{{range .None}}x{{else}}none{{end}}{{with .Update}}{{.State}}{{end}}"#, "nonepaused"),
        (r#"{{if eq .Name "db" "web"}}a{{else if .Missing}}b{{else}}c{{end}}"#, "a"),
        (r#"{{if and .Name (gt .Replicas 2) (not .None)}}yes{{end}}"#, "yes"),
        (r#"{{if .Missing}}x{{else}}none{{end}}"#, "none"),
        (r#"{{index .Labels "tier"}}{{index .Labels "none"}}{{index .Ports 1}}"#, "front443"),
        ("{{$n := len .Ports}}{{if true}}{{$n := 9}}{{end}}{{$n}}{{$n = 5}}{{$n}}", "25"),
        ("a  {{- /* said */ -}}  b {{- .Name -}} \n c", "ab webc".replace("b w", "bw").as_str()),
        (r#"{{"{{"}}{{`}}`}}{{"a\"b\\"}}"#, r#"{{}}a"b\"#),
        (r#"{{(index .Ports 0)}}{{printf "%03d%%" .Replicas}}{{print "a" 1}}"#, "80003%a 1"),
        (r#"{{title .Name}}{{pad .Name 1 2}}|{{truncate .Name 2}}{{split "a-b" "-"}}"#, "Web web  |we[a b]"),
        (r#"{{twice .Name}}{{.Name | twice}}{{.Label "tier"}}"#, "webwebwebwebfront"),
    ] {
        assert_eq!(rendered(text, &service()).as_deref(), Ok(want), "{text}");
    }
    let row = json!({ "Labels": "a=1,b=2" });
    assert_eq!(rendered(r#"{{.Label "b"}}{{.Label "c"}}"#, &row).as_deref(), Ok("2"));
}

#[test]
fn what_is_not_understood_is_named() {
    for (text, why) in [
        ("{{.Nmae}}", "there is no field Nmae (there are "),
        ("{{", "without an end"),
        ("{{}}", "empty"),
        ("{{.Name", "without an end"),
        ("{{\"x}}", "without an end"),
        ("{{if .Name}}x", "has no {{end}}"),
        ("{{if .Name}}x{{else}}y{{else}}z{{end}}", "has no {{end}}"),
        ("{{end}}", "without what it ends"),
        ("{{else}}", "without an if"),
        ("{{frobnicate .Name}}", "there is no function frobnicate"),
        ("{{index.Labels \"x\"}}", "unexpected"),
        ("{{template \"x\"}}", "not supported"),
        ("{{(.Name}}", "without its )"),
        ("{{.Name)}}", "without its ("),
        ("{{.Name .Replicas}}", "only a function takes arguments"),
        ("{{.Name | .Replicas}}", "want a function behind |"),
        ("{{.Name | 5}}", "want a function behind |"),
        ("{{upper 5}}", "upper: can't be called with a number"),
        ("{{eq .Name 5}}", "can't compare a text with a number"),
        ("{{.Name.First}}", "can't take .First of a text"),
        ("{{range .Name}}{{end}}", "can't range over a text"),
        ("{{$x}}", "there is no variable $x"),
        ("{{$x = 1}}", "there is no variable $x"),
        ("{{index .Ports 9}}", "no entry 9"),
        ("{{printf \"%d\" .Name}}", "%d doesn't fit a text"),
        ("{{printf \"%99999d\" 1}}", "more than the 1000 allowed"),
    ] {
        let error = rendered(text, &service()).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
    let deep = "{{if .Name}}".repeat(40);
    assert!(rendered(&deep, &service()).unwrap_err().contains("32 blocks"));
    let brackets = format!("{{{{{}}}}}", "(".repeat(50));
    assert!(rendered(&brackets, &service()).unwrap_err().contains("32 brackets"));
}

#[test]
fn no_template_runs_or_grows_for_ever() {
    let long: Value = (0..1_000).collect();
    let top = json!({ "L": long, "Text": "x".repeat(10_000) });
    let loops = "{{range $.L}}{{range $.L}}{{range $.L}}{{end}}{{end}}{{end}}";
    assert!(rendered(loops, &top).unwrap_err().contains("steps"));
    let grows = "{{range $.L}}{{range $.L}}{{$.Text}}{{end}}{{end}}";
    assert!(rendered(grows, &top).unwrap_err().contains("bytes"));
}

#[test]
fn a_trial_takes_every_branch() {
    let none = |_: &str, _: &[Value]| None;
    let top = service();
    let tried = |text: &str| {
        let data = Data { top: &top, nothing: "", strict: false, call: &none };
        Template::parse(text, &[]).unwrap().try_all(&data)
    };
    assert_eq!(tried("{{if .Name}}a{{else}}{{.Replicas}}{{end}}"), Ok(()));
    assert!(tried("{{if .Name}}a{{else}}{{upper .Replicas}}{{end}}").is_err());
    assert!(tried("{{if .None}}{{eq .Name 1}}{{end}}").is_err());
}

#[test]
fn titles_stand_where_fields_do() {
    let template = Template::parse("{{.ID}}\t{{upper .Name}}: {{.Spec.Mode}}", &[]).unwrap();
    assert_eq!(template.titles(|name| name.to_uppercase()), "ID\tNAME: MODE");
    assert_eq!(template.printed_fields(), ["ID", "Name", "Mode"]);
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "([{}\"\\\\`.$|()=:,a-zé -]|\\{\\{|\\}\\}|if |range |end|else|with |\\.Name|index |-){0,40}") {
        let _ = rendered(&text, &service());
    }
}
