//! What a call was made with and comes back in the answer: it is not shown, kept or used.

/// No token has fewer bytes; what is shorter may stand in an answer by chance.
const SHORTEST_TOKEN: usize = 16;

/// Overwrites an access token, and a one-time code in a text, wherever an answer quotes them.
pub(super) fn mask(answer: &mut [u8], token: Option<&str>, code: Option<&str>) {
    if let Some(token) = token.filter(|token| token.len() >= SHORTEST_TOKEN) {
        cover(answer, token.as_bytes(), |_, _| true);
    }
    if let Some(code) = code.filter(|code| !code.is_empty()) {
        // Within a longer number, or as a number by itself, it is there by chance.
        let in_text = |before: Option<u8>, after: Option<u8>| {
            let by_itself = |b: Option<u8>| !b.is_some_and(|b| b.is_ascii_digit());
            let number = |b: Option<u8>| b.is_none_or(|b| b":,[]} \t\r\n".contains(&b));
            by_itself(before) && by_itself(after) && !(number(before) && number(after))
        };
        cover(answer, code.as_bytes(), in_text);
    }
}

/// Writes an x over each byte of each place that holds a secret, where its neighbours say so.
fn cover(answer: &mut [u8], secret: &[u8], is_it: impl Fn(Option<u8>, Option<u8>) -> bool) {
    let mut from = 0;
    while let Some(at) = answer
        .get(from..)
        .and_then(|rest| rest.windows(secret.len()).position(|part| part == secret))
        .map(|at| from + at)
    {
        let end = at + secret.len();
        let before = at.checked_sub(1).and_then(|at| answer.get(at)).copied();
        if is_it(before, answer.get(end).copied())
            && let Some(place) = answer.get_mut(at..end)
        {
            place.fill(b'x');
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::mask;

    fn masked(answer: &str, code: &str) -> String {
        let mut bytes = answer.as_bytes().to_vec();
        mask(&mut bytes, Some("abcdef0123456789"), Some(code));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_was_sent_is_not_in_the_answer_any_more() {
        let x = "xxxxxxxxxxxxxxxx";
        for (answer, left) in [
            (
                r#"{"name":"abcdef0123456789"}"#,
                format!(r#"{{"name":"{x}"}}"#),
            ),
            (
                r#"["Bearer abcdef0123456789!"]"#,
                format!(r#"["Bearer {x}!"]"#),
            ),
            ("abcdef0123456789abcdef0123456789", format!("{x}{x}")),
            (r#"{"name":"918273"}"#, r#"{"name":"xxxxxx"}"#.into()),
            (
                r#"{"name":"code 918273!"}"#,
                r#"{"name":"code xxxxxx!"}"#.into(),
            ),
        ] {
            assert_eq!(masked(answer, "918273"), left);
        }
    }

    #[test]
    fn what_is_there_by_chance_stays() {
        for answer in [
            "",
            "918273",
            r#"{"id":918273,"usIn":1918273000}"#,
            r#"{"usIn":"17000918273001","ids":[918273, 918273]}"#,
            r#"{"token":"abcdef012345678"}"#,
        ] {
            assert_eq!(masked(answer, "918273"), answer);
        }
        assert_eq!(masked("{}", ""), "{}");
    }
}
