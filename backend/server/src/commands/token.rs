//! `moslim-lab token`: a token for a member of a group.

use crate::access::keys::invite;
use crate::cli::TokenArgs;
use crate::commands::print_exactly;
use crate::failure::Failure;
use crate::log::say;

/// Prints the token once, for whom it is for, and the lines for the file that `serve --tokens` reads.
///
/// # Errors
/// When the system gives no random numbers.
pub fn run(args: &TokenArgs) -> Result<(), Failure> {
    if args.name.is_empty() || args.name.chars().count() > 64 {
        return Err(Failure::field("name", "a name has 1 to 64 characters"));
    }
    let (token, lines) = invite(&args.name, args.role)?;
    say(&format!("The token of {}; it is shown once, and the file holds only its hash: {token}", args.name));
    say("Add these lines to the file that the server was given with --tokens:");
    print_exactly(lines.trim_end())
}
