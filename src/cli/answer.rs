//! The form of an answer: an object, lines, columns, or what would be done.

use serde_json::{Value, json};

use super::{context::Context, failure::Failure, report::Output};

/// Says what a command would do.
pub(super) fn plan(context: &Context, steps: &[String]) -> Result<(), Failure> {
    plan_on(context.output, steps)
}

/// As [`plan`], of a command that needs no state.
pub(super) fn plan_on(output: Output, steps: &[String]) -> Result<(), Failure> {
    let value = json!({"dry_run": true, "steps": steps});
    output.result(&value, || steps.join("\n"))
}

/// Adds the fields of one object to another.
pub(super) fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

/// Writes an object for people: a line for each field that says something.
pub(super) fn lines(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let shown = fields.filter_map(|(field, value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) => text.trim_end().to_owned(),
            Value::Array(items) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                if items.is_empty() {
                    "none".into()
                } else {
                    items.join(" ")
                }
            }
            other => other.to_string(),
        };
        let gap = if text.contains('\n') { '\n' } else { ' ' };
        Some(format!("{}:{gap}{text}\n", field.replace('_', " ")))
    });
    shown.collect()
}

/// Lays cells out in columns, the way terminals have always been read.
pub(super) fn columns(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(head.iter().map(|column| column.to_uppercase()));
    table.add_rows(rows);
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}
