//! Members of JSON objects: parameters, and members that may occur once.

use inferd_types::Result;

use super::scan::Scanner;
use crate::invalid::invalid;
use crate::options;

/// Passes every member of a `parameters` object to `take`.
pub(super) fn read_parameters<'a>(
    scanner: &mut Scanner<'a>,
    mut take: impl FnMut(&str, options::Value<'a>) -> Result<()>,
) -> Result<()> {
    if scanner.eat_word(b"null") {
        return Ok(());
    }
    let mut first = true;
    scanner.open(b'{').map_err(|error| error.within("parameters"))?;
    while let Some(name) = scanner.key(&mut first)? {
        let value = scanner.value()?;
        take(&name, value)?;
    }
    Ok(())
}

/// Refuses a repeated member.
pub(super) fn once(seen: &mut bool, name: &str) -> Result<()> {
    if std::mem::replace(seen, true) {
        return Err(invalid(format!("'{name}' occurs twice in one object; once is expected")));
    }
    Ok(())
}
