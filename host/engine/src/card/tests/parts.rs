//! Cards of language models in several files.

use crate::Card;

#[test]
fn data_files_of_gguf_are_its_parts() {
    const LANGUAGE: &str = include_str!("../../../../../weights/smollm2/card.toml");
    let name = Card::parse(LANGUAGE).unwrap().model_file().path.clone();
    let parsed = |model: &str, data: &[&str]| {
        let files: String = data
            .iter()
            .map(|path| {
                let hash = "0".repeat(64);
                format!("[[files]]\npath = \"{path}\"\nrole = \"data\"\nbytes = 4\nsha256 = \"{hash}\"\n\n")
            })
            .collect();
        let text = LANGUAGE.replace(&name, model);
        let (text, _) = text.split_once("[download.pip]").unwrap();
        Card::parse(&text.replacen("[download.hub]", &format!("{files}[download.hub]"), 1))
    };
    let (first, parts) = ("m-00001-of-00003.gguf", ["m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]);
    assert_eq!(parsed(first, &parts).unwrap().files.len(), 3);
    assert_eq!(parsed("m-00001-of-00001.gguf", &[]).unwrap().files.len(), 1);
    let cases: [(&str, &[&str], &str); 5] = [
        (
            "m.gguf",
            &["w.bin"],
            "`files` has the data files `w.bin`, expected the parts that follow `m.gguf`: none",
        ),
        (
            first,
            &[],
            "`files` has the data files none, expected the parts that follow `m-00001-of-00003.gguf`: \
             `m-00002-of-00003.gguf`, `m-00003-of-00003.gguf`",
        ),
        (first, &parts[1..], "`files` has the data files `m-00003-of-00003.gguf`, expected "),
        (first, &[parts[1], parts[0]], "`files` has the data files `m-00003-of-00003.gguf`, `m-00002-of"),
        (
            "m-00001-of-99999.gguf",
            &[],
            "`m-00001-of-99999.gguf`: the GGUF file is the first of 99999 parts by its name; expected at most 128",
        ),
    ];
    for (model, data, expected) in cases {
        let message = parsed(model, data).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn sources_of_parts_have_their_names() {
    let hash = "0".repeat(64);
    let file = |number, role| {
        format!(
            "{{ path = \"m-0000{number}-of-00002.gguf\", role = \"{role}\", bytes = 4, sha256 = \"{hash}\" }}"
        )
    };
    let parsed = |download: &str| {
        Card::parse(&format!(
            "name = \"m\"\ntask = \"text-generation\"\nformat = \"gguf\"\ndescription = \"\"\n\
             license = \"MIT\"\nsource = \"\"\nfiles = [{}, {}]\n{download}",
            file(1, "model"),
            file(2, "data")
        ))
    };
    let hub = |file| format!("[download.hub]\nrepository = \"a/b\"\nrevision = \"c\"\nfile = \"{file}\"\n");
    let card = parsed(&hub("m-00001-of-00002.gguf")).unwrap();
    let names: Vec<_> = card.model_files().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]);
    assert_eq!(
        parsed(&hub("other.gguf")).unwrap_err(),
        "`download.hub.file` is `other.gguf`, expected `m-00001-of-00002.gguf`, since the other parts are beside it"
    );
    assert_eq!(
        parsed("[download.pip]\npackages = [\"a==1\"]\nparts = \"*\"\n").unwrap_err(),
        "`download.pip` is not allowed for a model in several files; use `download.hub`"
    );
}
