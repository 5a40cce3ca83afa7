use super::*;
use crate::cli::json::text;
use serde_json::json;

struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| std::fs::write(dir.path().join(name), content).unwrap());
        Self(dir)
    }

    fn load(&self, names: &[&str]) -> Result<Stack, CliError> {
        self.load_with(names, &[])
    }

    fn load_with(&self, names: &[&str], profiles: &[&str]) -> Result<Stack, CliError> {
        let files: Vec<PathBuf> = names.iter().map(|name| self.0.path().join(name)).collect();
        let profiles: Vec<String> = profiles.iter().map(|p| (*p).to_owned()).collect();
        let environment = Variables::from([("HOME".to_owned(), "/home/ann".to_owned())]);
        load(&Source { files: &files, stack: "st", profiles: &profiles, environment, env_files: &[] })
    }
}

fn spec(stack: &Stack, short: &str) -> Value {
    Value::Object(stack.services.iter().find(|service| service.short == short).unwrap().spec.clone())
}

const FULL: &str = r#"
version: "3.8"
x-common: &common
  logging: {driver: json-file, options: {max-size: 10m}}
services:
  web:
    <<: *common
    image: "nginx:${TAG:-1}"
    command: nginx -g 'daemon off;'
    environment: {A: 1, B: "${FROM_FILE}", C: null, HOME: }
    env_file: [web.env, {path: none.env, required: false}]
    labels: [tier=front]
    extra_hosts: ["db:10.0.0.9"]
    ports: ["8080:80", {target: 443, published: "8443", mode: host}, "53:53/udp"]
    networks: {front: {aliases: [www]}}
    volumes: ["data:/data", "./site:/srv:ro", {type: tmpfs, target: /tmp, tmpfs: {size: 64m}}]
    secrets: [token, {source: token, target: /etc/token, uid: "5", mode: 0400}]
    configs: [{source: motd, target: /etc/motd}]
    healthcheck: {test: curl -f localhost, interval: 5s, retries: 2}
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    cap_add: [net_admin]
    stop_grace_period: 1m30s
    restart: on-failure:3
    depends_on: {db: {condition: service_healthy}}
    deploy:
      replicas: ${REPLICAS:-3}
      labels: {a: b}
      placement: {constraints: [node.labels.zone==a], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
      resources: {limits: {cpus: "0.5", memory: 64M}, reservations: {memory: 16M}}
      update_config: {parallelism: 2, order: start-first, monitor: 100ms, max_failure_ratio: 0.1}
  db:
    image: postgres
    build: .
    userns_mode: host
    deploy: {mode: global}
networks: {front: {internal: true, driver_opts: {x: "1"}}, unused: {}}
volumes: {data: {driver: local}}
secrets: {token: {file: ./token}, unused: {file: ./nowhere-needed}}
configs: {motd: {content: "hi $$you"}}
"#;

#[test]
fn a_whole_file_becomes_what_docker_stack_makes_of_it() {
    let files = Files::new(&[
        ("compose.yml", FULL),
        (".env", "TAG=2\nFROM_FILE=x y\n"),
        ("web.env", "C=from-file\nD=4\n"),
        ("token", "hunter2"),
        ("nowhere-needed", "x"),
    ]);
    let stack = files.load(&["compose.yml"]).unwrap();
    let names: Vec<&str> = stack.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["st_db", "st_web"], "what is depended on comes first");
    assert_eq!(
        stack.warnings,
        [
            "services.db.build: not supported, nothing is built: the nodes run services.db.image as the registry has it",
            "passed over, as a cluster has no use for it: services.db.userns_mode"
        ]
    );
    let web = spec(&stack, "web");
    let container = &web["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Image"], "nginx:2");
    assert_eq!(container["Args"], json!(["nginx", "-g", "daemon off;"]));
    assert_eq!(container["Env"], json!(["A=1", "B=x y", "D=4", "HOME=/home/ann"]));
    assert_eq!(container["Hosts"], json!(["10.0.0.9 db"]));
    assert_eq!(container["Labels"], json!({ "com.docker.stack.namespace": "st", "tier": "front" }));
    assert_eq!(container["StopGracePeriod"], 90_000_000_000u64);
    assert_eq!(container["CapabilityAdd"], json!(["CAP_NET_ADMIN"]));
    assert_eq!(container["Ulimits"][0], json!({ "Name": "nofile", "Soft": 10, "Hard": 20 }));
    assert_eq!(container["Healthcheck"]["Test"], json!(["CMD-SHELL", "curl -f localhost"]));
    assert_eq!(container["Secrets"][1]["File"], json!({ "Name": "/etc/token", "UID": "5", "GID": "0", "Mode": 0o400 }));
    assert_eq!(container["Configs"][0]["ConfigName"], "st_motd");
    let site = files.0.path().join("./site").display().to_string();
    assert_eq!(container["Mounts"][0]["Source"], "st_data");
    assert_eq!(container["Mounts"][0]["VolumeOptions"]["DriverConfig"]["Name"], "local");
    assert_eq!(Path::new(text(&container["Mounts"][1], "/Source")), std::path::absolute(site).unwrap());
    assert_eq!(container["Mounts"][2]["TmpfsOptions"]["SizeBytes"], 64 << 20);
    assert_eq!(web["TaskTemplate"]["LogDriver"], json!({ "Name": "json-file", "Options": { "max-size": "10m" } }));
    assert_eq!(web["TaskTemplate"]["Networks"], json!([{ "Target": "st_front", "Aliases": ["www", "web"] }]));
    assert_eq!(web["TaskTemplate"]["RestartPolicy"], json!({ "Condition": "on-failure", "MaxAttempts": 3 }));
    assert_eq!(web["TaskTemplate"]["Resources"]["Limits"], json!({ "NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20 }));
    assert_eq!(web["TaskTemplate"]["Placement"]["MaxReplicas"], 2);
    assert_eq!(web["Mode"], json!({ "Replicated": { "Replicas": 3 } }));
    assert_eq!(web["EndpointSpec"]["Ports"].as_array().unwrap().len(), 3);
    assert_eq!(web["EndpointSpec"]["Ports"][1]["PublishMode"], "host");
    assert_eq!(web["UpdateConfig"]["Order"], "start-first");
    assert_eq!(
        web["Labels"],
        json!({ "a": "b", "com.docker.stack.namespace": "st", "com.docker.stack.image": "nginx:2" })
    );
    assert_eq!(spec(&stack, "db")["Mode"], json!({ "Global": {} }));
    let networks: Vec<(&str, bool)> = stack.networks.iter().map(|n| (n.name.as_str(), n.create.is_some())).collect();
    assert_eq!(networks, [("st_front", true), ("st_default", true)], "db is on the default one");
    assert_eq!(stack.secrets.len(), 1, "what nobody uses isn't made");
    assert_eq!(stack.configs[0].content.as_ref().unwrap().data, b"hi $you");
}

#[test]
fn every_key_that_is_not_known_is_named_in_one_error() {
    let files = Files::new(&[(
        "c.yml",
        "services: {a: {image: x, imagge: y, colour: red, deploy: {replcas: 2}, healthcheck: {tset: z}}}\nservics: {}\nx-mine: 1\n",
    )]);
    let error = files.load(&["c.yml"]).unwrap_err();
    assert_eq!(
        error.message(),
        "servics: unknown key; did you mean services?\n\
         error: services.a.colour: unknown key\n\
         error: services.a.imagge: unknown key; did you mean image?\n\
         error: services.a.healthcheck.tset: unknown key; did you mean test?\n\
         error: services.a.deploy.replcas: unknown key; did you mean replicas?"
    );
    assert_eq!(error.hint_text(), Some("correct them, take them out, or begin them with x-"));
}

/// A newcomer's `imag:` was told as an image that is missing, and his `build:` likewise.
#[test]
fn a_key_is_named_and_not_what_is_missing_because_of_it() {
    let load = |file: &str| Files::new(&[("c.yml", file)]).load(&["c.yml"]).unwrap_err();
    let error = load("services: {web: {imag: nginx}}");
    assert_eq!(error.message(), "services.web.imag: unknown key; did you mean image?");
    assert_eq!(error.hint_text(), Some("correct it, take it out, or begin it with x-"));
    let error = load("services: {web: {image: nginx, imag: }}");
    assert!(error.message().starts_with("services.web.imag: unknown key"), "{error}");
    let error = load("service: {web: {image: nginx}}");
    assert_eq!(error.message(), "service: unknown key; did you mean services?");
    let error = load("services: {web: {build: .}}");
    assert_eq!(error.message(), "services.web.build: not supported: a cluster runs images from a registry");
    assert!(error.hint_text().unwrap().ends_with("then name it: image: REGISTRY/web"), "{error:?}");
}

#[test]
fn an_error_in_yaml_has_the_file_the_line_and_the_column_and_no_more() {
    for (file, line) in
        [("services:\n  web:\n    image: x\n   ports: [1]\n", "4"), ("a: 1\na: 2\n", "2"), ("services: [", "1")]
    {
        let files = Files::new(&[("c.yml", file)]);
        let error = files.load(&["c.yml"]).unwrap_err().message().to_owned();
        let place = format!("{}:{line}:", files.0.path().join("c.yml").display());
        let rest = error.strip_prefix(&place).unwrap_or_else(|| panic!("{error}"));
        assert!(rest.starts_with(|c: char| c.is_ascii_digit()) && rest.len() > 10, "{error}");
        for noise in ["<input>", "error:", "\n", "column", "Options"] {
            assert!(!error.contains(noise), "{noise:?} in {error}");
        }
    }
}

#[test]
fn later_files_lie_over_earlier_ones_and_services_extend_others() {
    let files = Files::new(&[
        (
            "a.yml",
            "services: {web: {image: x:1, command: [a], environment: {A: 1}, ports: ['80:80'], deploy: {replicas: 2}}}",
        ),
        (
            "b.yml",
            "services: {web: {image: x:2, command: [b], environment: [B=2], ports: ['81:81'], extends: {file: base.yml, service: base}}}",
        ),
        (
            "base.yml",
            "services: {base: {image: old, hostname: h, extends: deeper}, deeper: {user: u, depends_on: [gone]}}",
        ),
    ]);
    let stack = files.load(&["a.yml", "b.yml"]);
    // A mapping and a list of the same thing can't lie over each other key by key: the later one stands.
    let web = spec(&stack.unwrap(), "web");
    let container = &web["TaskTemplate"]["ContainerSpec"];
    assert_eq!((&container["Image"], &container["Args"]), (&json!("x:2"), &json!(["b"])));
    assert_eq!((&container["Hostname"], &container["User"]), (&json!("h"), &json!("u")));
    assert_eq!(container["Env"], json!(["B=2"]));
    assert_eq!(web["EndpointSpec"]["Ports"].as_array().unwrap().len(), 2);
    assert_eq!(web["Mode"]["Replicated"]["Replicas"], 2);
}

#[test]
fn profiles_choose_services() {
    let files = Files::new(&[("c.yml", "services: {a: {image: x}, b: {image: y, profiles: [debug]}}")]);
    assert_eq!(files.load(&["c.yml"]).unwrap().services.len(), 1);
    assert_eq!(files.load_with(&["c.yml"], &["debug"]).unwrap().services.len(), 2);
    let files = Files::new(&[("c.yml", "services: {b: {image: y, profiles: [debug]}}")]);
    assert!(files.load(&["c.yml"]).unwrap_err().message().contains("no service"));
}

#[test]
fn what_makes_no_sense_is_told_with_its_place() {
    for (file, place) in [
        ("services: {a: {}}", "services.a: image is missing"),
        ("services: {a: {image: x, deploy: {replicas: many}}}", "services.a.deploy.replicas: \"many\""),
        ("services: {a: {image: x, volumes: ['data:/d']}}", "services.a.volumes[0]: there is no volume data"),
        ("services: {a: {image: x, networks: [n]}}", "services.a: there is no network n"),
        ("services: {a: {image: x, secrets: [s]}}", "services.a.secrets[0]: there is no s"),
        ("services: {a: {image: x, depends_on: [b]}}", "services.a.depends_on: there is no service b"),
        ("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", "in a circle: a, b"),
        ("services: {a: {image: '${V:?say V}'}}", "services.a.image: the variable V is missing: say V"),
        ("services: {a: {image: x, extends: {service: a}}}", "more than 8 deep"),
        ("services: {a: {image: x, env_file: nothing.env}}", "services.a.env_file"),
        ("services: {a: {image: x, ports: ['99999:1']}}", "services.a.ports[0]"),
        ("secrets: {s: {}}\nservices: {a: {image: x}}", "secrets.s: want file"),
        ("- a\n- b\n", "not a Compose file"),
        ("services: [", "c.yml"),
    ] {
        let error = Files::new(&[("c.yml", file)]).load(&["c.yml"]).unwrap_err();
        assert!(error.message().contains(place), "{file}: {error}");
    }
    // Aliases of aliases: the parser's bounds hold.
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..20 {
        let before = format!("*a{},", n - 1).repeat(9);
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    assert!(parse(&bomb, Path::new("bomb.yml")).is_err());
}

#[test]
fn hardware_the_nodes_network_and_templates_are_taken_though_dockers_stacks_pass_over_them() {
    let files = Files::new(&[(
        "compose.yml",
        r#"
services:
  cam:
    image: x
    devices: [/dev/video0, {source: /dev/a, target: /dev/b, permissions: r}]
    privileged: true
    shm_size: 64m
    gpus: all
    network_mode: host
    configs: [app]
  model:
    image: x
    networks: [node]
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}
networks: {node: {external: true, name: host}}
configs: {app: {content: "{{.Service.Name}}", template_driver: golang}}
"#,
    )]);
    let stack = files.load(&["compose.yml"]).unwrap();
    let (cam, model) = (spec(&stack, "cam"), spec(&stack, "model"));
    assert_eq!(cam["Labels"]["peer.devices"], "/dev/video0:/dev/video0:rwm,/dev/a:/dev/b:r");
    assert_eq!(cam["Labels"]["peer.privileged"], "true");
    assert_eq!((&cam["Labels"]["peer.shm-size"], &cam["Labels"]["peer.gpus"]), (&json!("67108864"), &json!("all")));
    assert_eq!(cam["TaskTemplate"]["Networks"], json!([{ "Target": "host" }]));
    assert_eq!(model["Labels"]["peer.gpus"], "2");
    assert_eq!(model["TaskTemplate"]["Networks"], json!([{ "Target": "host", "Aliases": [] }]));
    assert_eq!(stack.configs[0].content.as_ref().unwrap().templating(), json!({ "Name": "golang" }));
    for (service, why) in [
        ("devices: [fuse]", "devices[0]: device \"fuse\": want absolute paths"),
        ("gpus: some", "gpus: GPUs \"some\": want all"),
        ("gpus: [{count: 1}, {count: 2}]", "more than one request"),
        ("network_mode: host, networks: [default]", "want one of them"),
        ("deploy: {resources: {reservations: {devices: [{capabilities: [tpu]}]}}}", "only [gpu]"),
    ] {
        let file = format!("services: {{ a: {{ image: x, {service} }} }}");
        let error = Files::new(&[("c.yml", &file)]).load(&["c.yml"]).unwrap_err();
        assert!(error.message().contains(why), "{service}: {}", error.message());
    }
}
