//! What the README says of topics and queues, done as it stands there: what commands print is what it
//! shows.

use std::fmt::Write as _;
use std::path::Path;

use platziverse_testkit::World;

/// Where its section is.
const SECTION: &str = "\n## Topics and queues\n";
/// What is not on every machine: what needs it is left out.
const ELSEWHERE: [&str; 3] = ["cargo", "grpcurl", "grpcio"];
/// Ends the output of some commands.
const END: char = '\u{1e}';

/// Commands, and what they print together; `…` stands for anything.
#[derive(Debug, Default)]
struct Step {
    commands: String,
    prints: String,
}

/// The blocks of that kind in a text.
fn blocks<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("```{kind}\n");
    let rests = text.split(fence.as_str()).skip(1);
    rests.filter_map(|rest| rest.split("```").next()).collect()
}

/// What is to be done: lines that begin with `# ` say what those before them print.
fn steps(block: &str) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    for line in block.lines() {
        match (line.strip_prefix("# "), steps.last_mut()) {
            (Some(printed), Some(step)) => step.prints.extend([printed, "\n"]),
            (None, Some(step)) if step.prints.is_empty() => step.commands.extend([line, "\n"]),
            _ => steps.push(Step { commands: format!("{line}\n"), prints: String::new() }),
        }
    }
    steps
}

/// Whether a text is what was shown, where `…` stands for anything.
fn is_as_shown(text: &str, shown: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn dots_stand_for_anything() {
    for (text, shown, want) in [
        ("a", "a", true),
        ("ab", "a", false),
        ("abcabc", "a…c", true),
        ("abcabd", "…b…c…", true),
        ("abcabd", "a…c", false),
        ("ac", "a…b…c", false),
    ] {
        assert_eq!(is_as_shown(text, shown), want, "{text} {shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_readme_says_is_so() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let section = readme.split(SECTION).nth(1).expect("its section");
    let section = section.split("\n## ").next().expect("the section's end");
    let world = World::start().await;
    let mom = world.mom().await;
    std::os::unix::fs::symlink(root.join("deploy"), world.folder().join("deploy"))
        .expect("a link to deploy");
    for program in blocks(section, "python") {
        let name = program.lines().next().and_then(|line| line.strip_prefix("# "));
        std::fs::write(world.folder().join(name.expect("its name")), program).expect("a file");
    }

    let own = |block: &&str| !ELSEWHERE.iter().any(|program| block.contains(program));
    let steps: Vec<Step> = blocks(section, "sh").into_iter().filter(own).flat_map(steps).collect();
    assert!(steps.len() > 20, "the section has few commands: {steps:#?}");
    let mut script = "platziverse() { \"$PROGRAM\" \"$@\"; }\n".to_owned();
    for Step { commands, .. } in &steps {
        // Writing to a `String` cannot fail.
        let _ = writeln!(script, "{commands}printf '{END}'");
    }
    let grpc = format!("http://{}", mom.grpc());
    let program = platziverse_testkit::program("platziverse").display().to_string();
    let settings = [
        ("MOM_URL", format!("http://{}", mom.http())),
        ("MOM_GRPC_URL", grpc.clone()),
        ("PLATZIVERSE_MOM__URL", grpc),
        ("PROGRAM", program),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let ended = world.run("/usr/bin/env", &["bash", "-c", &script], &settings).await;
    assert_eq!(ended.stderr, "", "{ended:?}");
    let printed: Vec<&str> = ended.stdout.split(END).collect();
    assert_eq!(printed.len(), steps.len() + 1, "{ended:?}");
    for (step, printed) in steps.iter().zip(printed) {
        let is_so = is_as_shown(printed.trim_end(), step.prints.trim_end());
        assert!(is_so, "{step:#?} prints:\n{printed}");
    }
}
