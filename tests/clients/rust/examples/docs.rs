//! The example of docs/clients.md; ../../test_docs.py compares the two. The argument is the server's URL.

fn main() -> redis::RedisResult<()> {
    let url = std::env::args().nth(1).expect("usage: docs URL");
    // The page's lines, as they are there.
    #[rustfmt::skip]
    let found = {
        let mut connection = redis::Client::open(url)?.get_connection()?;
        let vector = [0.5_f32, 1.0];
        let blob: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        redis::cmd("VADD").arg("points").arg("FP32").arg(&blob).arg("a").exec(&mut connection)?;
        let found: Vec<String> = redis::cmd("VSIM").arg("points").arg("FP32").arg(&blob).arg("COUNT").arg(3).query(&mut connection)?;
        found
    };
    println!("{found:?}");
    Ok(())
}
