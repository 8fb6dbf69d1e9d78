//! A report as text: one screen, and no line longer than a terminal.

use core::fmt;

use super::{COLUMNS, LINES_MAX, Report};
use crate::check::model::seconds;
use crate::check::value::{FORK_STEP, branch_name, name_number, tenant_name, tenant_of};

/// Columns before the text of a section.
const MARGIN: usize = 12;

/// Lines of one section; what does not fit is cut.
const SECTION_MAX: usize = 3;

struct Page(Vec<String>);

impl Page {
    fn line(&mut self, text: &str) {
        let cut: String = if text.chars().count() > COLUMNS {
            text.chars().take(COLUMNS - 3).chain("...".chars()).collect()
        } else {
            text.to_owned()
        };
        self.0.push(cut.trim_end().to_owned());
    }

    /// A name and its text, broken at spaces.
    fn section(&mut self, name: &str, text: &str) {
        self.parts(name, text.split(' '), " ");
    }

    /// A name and parts that are not broken, as many on a line as fit.
    fn parts<'a>(&mut self, name: &str, parts: impl Iterator<Item = &'a str>, between: &str) {
        let mut lines: Vec<String> = Vec::new();
        let mut line = String::new();
        for part in parts {
            let wide = line.chars().count() + between.len() + part.chars().count() + MARGIN;
            if !line.is_empty() && wide > COLUMNS {
                line.push_str(between);
                lines.push(core::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push_str(between);
            }
            line.push_str(part);
        }
        lines.push(line);
        let more = lines.len() > SECTION_MAX;
        lines.truncate(SECTION_MAX);
        for (at, mut text) in lines.into_iter().enumerate() {
            if more && at + 1 == SECTION_MAX {
                text.push_str(" ...");
            }
            let name = if at == 0 { name } else { "" };
            self.line(&format!(" {name:<10} {text}"));
        }
    }
}

impl Report {
    fn headline(&self) -> String {
        let found = &self.violation;
        let verdict = found.rule.verdict().replace('-', " ").to_uppercase();
        let mut text = verdict;
        if let Some(name) = &found.tenant {
            text.push_str(&match name_number(name) {
                Some(number) if number < FORK_STEP => format!("   tenant {name}, branch main"),
                Some(number) => {
                    let (of, branch) = (tenant_name(tenant_of(number)), branch_name(number));
                    format!("   tenant {of}, branch {branch}")
                }
                None => format!("   tenant {name}"),
            });
        }
        if let Some(key) = &found.key {
            text.push_str(&format!(", key \"{key}\""));
        }
        format!("{text}   [rule {}]   seed {}", found.rule, self.seed)
    }

    fn head(&self, page: &mut Page) {
        page.line(&self.headline());
        page.section("promised", &self.violation.promised);
        let at = seconds(self.violation.at);
        page.section("found", &format!("{}   at vt {at} s", self.violation.found));
    }

    fn steps(&self, page: &mut Page) {
        if self.history.is_empty() {
            return;
        }
        let of = self.reduced.map_or_else(String::new, |from| format!(" of {}", from.ops_before));
        let runs = self
            .reduced
            .map_or_else(String::new, |from| format!("   reduced in {} runs", from.runs));
        page.line("");
        page.line(&format!(
            " history ({}{of} ops, {} crashes, {} faults, {} clients){runs}",
            self.ops, self.crashes, self.faults, self.clients
        ));
        let mut last = 0;
        for step in &self.history {
            if step.number > last + 1 {
                page.line(&format!("      ... {} steps", step.number - last - 1));
            }
            last = step.number;
            let mark = if step.is_guilty { "   <<<<" } else { "" };
            page.line(&format!(
                " {:>3}  {:<10} {}   {}{mark}",
                step.number, step.who, step.what, step.result
            ));
        }
        page.line("");
    }

    fn facts(&self, page: &mut Page) {
        if !self.life.is_empty() {
            let seq = self.violation.seq.unwrap_or(0);
            page.line(&format!(" life of seq {seq}"));
            page.parts("", self.life.iter().map(String::as_str), " -> ");
        }
        for (at, line) in self.waits.iter().enumerate() {
            page.line(&format!(" {:<10} {line}", if at == 0 { "waits" } else { "" }));
        }
        if !self.files.is_empty() {
            let name = |file: &crate::view::FileView| {
                format!("{} {} B", super::file_name(&file.path), file.bytes)
            };
            let files: Vec<String> = self.files.iter().map(name).collect();
            page.parts("on disk", files.iter().map(String::as_str), ", ");
        }
        if !self.missing.is_empty() {
            page.parts("missing", self.missing.iter().map(String::as_str), ", ");
        }
    }

    fn reruns(&self, page: &mut Page) {
        let same = self.violation.rule;
        let word = |rule| match rule {
            None => "pass".to_owned(),
            Some(rule) if rule == same => "FAIL".to_owned(),
            Some(rule) => format!("FAIL by {rule}"),
        };
        let variants: Vec<String> =
            self.what_if.iter().map(|v| format!("{}: {}", v.change, word(v.rule))).collect();
        if !variants.is_empty() {
            page.parts("what if", variants.iter().map(String::as_str), " | ");
        }
        if let Some(found) = &self.no_return {
            let of = found.futures;
            page.section(
                "no return",
                &match found.step {
                    Some(step) => format!(
                        "step {step}: {} of {of} futures from it fail, {} of {of} from before it",
                        found.fail, found.fail_before
                    ),
                    None if found.fail == of => {
                        format!("{of} of {of} futures fail, whatever is drawn")
                    }
                    None => format!(
                        "{} of {of} futures from the last step fail, {} of {of} from the first",
                        found.fail, found.fail_before
                    ),
                },
            );
        }
        if let Some(stable) = &self.stable {
            page.section(
                "stable",
                &format!(
                    "{}/{} replays identical, event hash {}, build {}",
                    stable.same, stable.replays, stable.trace_hash, self.build
                ),
            );
        }
        page.section("setting", &self.setting);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = Page(Vec::new());
        self.head(&mut page);
        self.steps(&mut page);
        self.facts(&mut page);
        self.reruns(&mut page);
        for line in page.0.iter().take(LINES_MAX) {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
