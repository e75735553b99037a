//! The built-in policies and their examples: invented posts, at least one for each kind of mistake
//! that a small model makes. Their language is that of real posts.

/// Label of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    Violates,
    Allowed,
}
use Label::{Allowed, Violates};

/// A policy for a category.
#[derive(Debug)]
pub(crate) struct BuiltIn {
    /// The category that it decides.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// As many of one label as of the other, alternating.
    pub(crate) examples: &'static [(&'static str, Label)],
}

impl BuiltIn {
    /// The policy of this name; offensive language for a name of the operator's.
    pub(crate) fn find(name: Option<&str>) -> &'static BuiltIn {
        ALL.iter().find(|own| name == Some(own.name)).unwrap_or(&ALL[0])
    }
}

/// All policies. Offensive posts are not all hate, so each has a question of its own.
pub(crate) const ALL: [BuiltIn; 2] = [
    BuiltIn { name: "harassment", text: OFFENSIVE, examples: &OFFENSIVE_EXAMPLES },
    BuiltIn { name: "hate", text: HATE, examples: &HATE_EXAMPLES },
];

const OFFENSIVE: &str = "\
Our community does not allow offensive language:
- slurs and degrading words for people, whether about race, religion, origin, sex, sexual orientation or disability, \
also when they are shortened, misspelt, friendly, quoted or a joke;
- insults, threats and harassment;
- crude sexual or vulgar words for women or anyone else.
Allowed: criticism, disagreement and complaints without such words, news, sports, food, animals, everyday slang, and \
calling a thing (a team, a game, a song) trash.";

const OFFENSIVE_EXAMPLES: [(&str, Label); 24] = [
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

const HATE: &str = "\
Not allowed: slurs and contempt for people because of race, colour, origin, religion, sex, sexuality or disability; \
calling them inferior, dirty, stupid, criminal, animals or a danger; wishing them harm or away; praise of white power \
and of those who persecuted them.
Allowed: everything else, also mentions of such people, history, news, personal talk, questions and anger about other \
things.";

const HATE_EXAMPLES: [(&str, Label); 12] = [
    ("what time does the meeting start on friday", Allowed),
    ("the negroes ruined this neighbourhood, every one of them", Violates),
    ("my neighbour is from Kenya and plays the cello", Allowed),
    ("jews own the newspapers and lie to us", Violates),
    ("thanks for the link, I will read the book next week", Allowed),
    ("we must keep our blood pure and our land white", Violates),
    ("I saw two black men on the train and one helped with my bag", Allowed),
    ("women are too dumb to vote", Violates),
    ("how old is your son now?", Allowed),
    ("send them all back where they came from, filthy animals", Violates),
    ("the president of France spoke about immigration", Allowed),
    ("lol trannies are mentally ill freaks", Violates),
];
