//! The built-in policy and its examples: invented posts, at least one for each kind of mistake that
//! a small model makes. Their language is that of real posts.

/// Label of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    Violates,
    Allowed,
}
use Label::{Allowed, Violates};

/// Default of `policy.text`.
pub(crate) const POLICY: &str = "\
Our community does not allow offensive language:
- slurs and degrading words for people, whether about race, religion, origin, sex, sexual orientation or disability, \
also when they are shortened, misspelt, friendly, quoted or a joke;
- insults, threats and harassment;
- crude sexual or vulgar words for women or anyone else.
Allowed: criticism, disagreement and complaints without such words, news, sports, food, animals, everyday slang, and \
calling a thing (a team, a game, a song) trash.";

/// The examples: as many of one label as of the other, alternating.
pub(crate) const EXAMPLES: [(&str, Label); 24] = [
    ("our goalie is trash, trade him already", Allowed),
    ("lmao these hoes aint loyal", Violates),
    ("yankees lost again lol", Allowed),
    ("shut up you retard, nobody asked you", Violates),
    ("Charlie is my favorite monkey at the zoo", Allowed),
    ("niggas be lying every single day", Violates),
    ("the senator lied about immigration again, what a disgrace", Allowed),
    ("you dyke looking clown", Violates),
    ("no that movie was bad, you must be crazy haha", Allowed),
    ("all them fags need to go back home", Violates),
    ("brownies and a yellow lemon cake for breakfast", Allowed),
    ("that bitch stole my phone smh", Violates),
    ("I grew up in the ghetto and I am proud of it", Allowed),
    ("nicca please, you dont know me", Violates),
    ("queer people marched for their rights downtown", Allowed),
    ("pussy so good he came back twice", Violates),
    ("the bird flew into the trash can", Allowed),
    ("white trash family on the bus again", Violates),
    ("hell yeah, damn good pizza", Allowed),
    ("me and my bitches getting drunk tonight, love them", Violates),
    ("country boys and rednecks know how to party", Allowed),
    ("dumb cunt, learn to drive", Violates),
    ("I hate Mondays so much, somebody kill the alarm clock", Allowed),
    ("she a hoe, everybody knows it", Violates),
];
