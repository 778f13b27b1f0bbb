//! Host files and Slurm's variables in all their spellings, right and wrong.

use super::*;

fn file(text: &str) -> Result<Vec<Named>, String> {
    host_file(text, Path::new("hosts")).map_err(|error| error.to_string())
}

fn one(name: &str, slots: u32) -> Named {
    (name.to_owned(), Some(slots))
}

#[test]
fn both_spellings_of_a_host_file_are_read() {
    let text = "# a cluster\n\nn1 slots=4\nn2 slots = 4 max_slots=8 # two\nn3:2\n  n4\tslots= 1\t\nn5.example.org:16\n\
                10.0.0.7:1\nn6 max-slots=2 slots=1\n";
    let expected = [
        one("n1", 4),
        one("n2", 4),
        one("n3", 2),
        one("n4", 1),
        one("n5.example.org", 16),
        one("10.0.0.7", 1),
        one("n6", 1),
    ];
    assert_eq!(file(text), Ok(expected.to_vec()));
    assert_eq!(file("n1\n"), Ok(vec![("n1".to_owned(), None)]));
    assert_eq!(file("n1\r\nn2:3\r\n"), Ok(vec![("n1".to_owned(), None), one("n2", 3)]));
    assert_eq!(file("# nothing\n\n"), Ok(vec![]));
}

#[test]
fn a_host_on_several_lines_has_all_their_slots() {
    assert_eq!(file("n1\nn2:2\nn1\nn2 slots=3\n"), Ok(vec![one("n1", 2), one("n2", 5)]));
}

#[test]
fn a_line_that_makes_no_sense_is_refused_with_file_and_line() {
    for (line, word) in [
        ("n1 slots", "`slots` is not of the form"),
        ("n1 slots=", "not of the form"),
        ("n1 slots=x", "`x` is no number"),
        ("n1 slots=-1", "`-1` is no number"),
        ("n1 slots=0", "leave its line out"),
        ("n1:0", "leave its line out"),
        ("n1:", "`` is no number"),
        ("n1:4:2", "IPv6"),
        ("[::1]:4", "IPv6"),
        ("fe80::1 slots=2", "IPv6"),
        (":4", "`` is no name"),
        ("=4", "`=` is no name"),
        ("-oProxyCommand=x", "`-oProxyCommand` is no name"),
        ("me@n1", "settings of ssh"),
        ("n1,n2", "`n1,n2` is no name"),
        ("n1;reboot", "is no name"),
        ("n1 cores=4", "`cores` is not known"),
        ("n1:2 slots=4", "given twice"),
        ("n1 slots=4 slots=4", "given twice"),
        ("n1 slots=4 max_slots=2", "more than max_slots=2"),
        ("n1 slots=99999999999", "is no number"),
        ("n1 slots=2000000", "is no number"),
    ] {
        let refused = file(&format!("# first\nn0:1\n{line}\n")).expect_err(line);
        assert!(refused.starts_with("hosts:3: ") && refused.contains(word), "{line}: {refused}");
        assert!(refused.contains("slots=4`, or `node1:4`"), "{refused}");
    }
}

#[test]
fn a_host_file_that_is_missing_or_empty_is_refused() {
    let missing = Slots::find_in("/nowhere/hosts").expect_err("it is missing").to_string();
    assert!(missing.contains("`/nowhere/hosts` cannot be read"), "{missing}");
    let folder = tempfile::tempdir().expect("there is room for temporary files");
    let path = folder.path().join("hosts");
    fs::write(&path, "# none today\n").expect("the folder can be written");
    assert!(read_host_file(&path).expect_err("it is empty").to_string().contains("names no host"));
}

#[test]
fn a_node_list_is_expanded_as_slurm_writes_it() {
    for (list, expected) in [
        ("n1", "n1"),
        ("n1,n2", "n1 n2"),
        ("n[1-3]", "n1 n2 n3"),
        ("n[01-03,7],gpu2", "n01 n02 n03 n7 gpu2"),
        ("n[08-11]", "n08 n09 n10 n11"),
        ("n[098-101]", "n098 n099 n100 n101"),
        ("r[1-2]n[1,3]", "r1n1 r1n3 r2n1 r2n3"),
        ("n[1-2]-ib,x", "n1-ib n2-ib x"),
        ("n[5]", "n5"),
    ] {
        assert_eq!(expand_nodes(list).expect(list).join(" "), expected, "{list}");
    }
}

#[test]
fn a_node_list_that_makes_no_sense_is_refused() {
    for list in [
        "",
        ",",
        "n1,",
        "n[1",
        "n1]",
        "n[1[2]]",
        "n[]",
        "n[a]",
        "n[3-1]",
        "n[1-]",
        "n[-3]",
        "n[1-2-3]",
        "n[+1]",
        "n[0-99999999]",
        "n[0-99999]m[0-99999]",
        "n 1",
    ] {
        assert!(expand_nodes(list).is_err(), "{list:?} should be refused");
    }
}

#[test]
fn cpus_are_expanded_as_slurm_writes_them() {
    assert_eq!(expand_cpus("2"), Ok(vec![2]));
    assert_eq!(expand_cpus("2,1"), Ok(vec![2, 1]));
    assert_eq!(expand_cpus("2(x2)"), Ok(vec![2, 2]));
    assert_eq!(expand_cpus("72(x2),36,4(x1)"), Ok(vec![72, 72, 36, 4]));
    for wrong in ["", "0", "2(x0)", "2(x", "2(x2", "2(2)", "x", "2,", "-2", "1(x99999999)"] {
        assert!(expand_cpus(wrong).is_err(), "{wrong:?} should be refused");
    }
}

#[test]
fn hosts_and_cpus_of_slurm_must_agree() {
    assert_eq!(slurm_hosts("n[1-2]", "4,2"), Ok(vec![one("n1", 4), one("n2", 2)]));
    let refused = slurm_hosts("n[1-3]", "4,2").expect_err("they differ").to_string();
    assert!(refused.contains("counts 2 host(s)") && refused.contains("names 3"), "{refused}");
    let refused = slurm_hosts("n[1", "4").expect_err("it is cut off").to_string();
    assert!(refused.contains("SLURM_JOB_NODELIST is `n[1`"), "{refused}");
}

#[test]
fn a_host_file_chooses_among_the_allocated() {
    let allocated = [one("n1", 4), one("n2", 2), one("n3", 8)];
    let choose = |text| {
        choose(&allocated, &file(text).expect(text), "n1", Path::new("hosts"))
            .map_err(|error| error.to_string())
    };
    assert_eq!(choose("n3:2\nn2\n"), Ok(vec![one("n3", 2), one("n2", 2)]));
    assert_eq!(choose("n2:16\n"), Ok(vec![one("n2", 2)]), "no more than the allocation has");
    assert_eq!(choose("localhost:1\n"), Ok(vec![one("n1", 1)]));
    assert!(choose("n9:1\n").expect_err("it is not there").contains("`n9`, which is not in the allocation"));
}

#[test]
fn this_host_is_known_by_several_names() {
    for (name, own, expected) in [
        ("n1", "n1", true),
        ("N1", "n1", true),
        ("n1.example.org", "n1", true),
        ("n1", "n1.example.org", true),
        ("n1.example.org", "n1.example.org", true),
        ("n1.example.org", "n1.example.com", false),
        ("n10", "n1", false),
        ("localhost", "n1", true),
        ("127.0.0.1", "n1", true),
        ("192.0.2.1", "n1", false),
    ] {
        assert_eq!(is_same_host(name, own), expected, "{name} at {own}");
    }
}

#[test]
fn cores_are_this_host_alone() {
    let slots = Slots::of_cores();
    assert!(slots.total() > 0 && !slots.has_other_hosts());
    assert_eq!(slots.source, Source::Cores);
}
