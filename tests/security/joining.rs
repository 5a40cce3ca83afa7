//! With a token that is old, cut short or guessed.

use crate::agents::{pair, start};
use peer::core::face::Request;
use peer::shell::identity::Token;
use peer::shell::identity::token::generate_secret;
use peer::shell::net::JoinError;

fn refusal(error: JoinError) -> String {
    match error {
        JoinError::Refused { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_stale_on_every_node_and_stays_so_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = pair(dir.path()).await;
    let old = one.token().await;
    one.joined_with(&old).await.unwrap();
    one.request(Request::RotateToken { secret: generate_secret().unwrap() }).await.unwrap();
    let new = one.token().await;
    let secret = new.secret().to_owned();
    two.until("the other node has the new token", move |core| core.cluster().join_secret == secret).await;
    for node in [&one, &two] {
        assert!(refusal(node.joined_with(&old).await.unwrap_err()).starts_with("wrong token"));
    }
    let two = two.again().await;
    assert!(refusal(two.joined_with(&old).await.unwrap_err()).starts_with("wrong token"));
    for node in [&one, &two] {
        node.joined_with(&new).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_guesses_and_the_address_is_silent_even_for_the_right_token() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = pair(dir.path()).await;
    let token = one.token().await;
    for _ in 0..5 {
        let guess = Token::new(*token.ca(), &generate_secret().unwrap()).unwrap();
        assert!(refusal(one.joined_with(&guess).await.unwrap_err()).starts_with("wrong token"));
    }
    let shut = refusal(one.joined_with(&token).await.unwrap_err());
    assert!(shut.contains("too many wrong tokens"), "{shut}");
    // Each node counts for itself: who was mistaken there may still come in here.
    two.joined_with(&token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_token_every_part_counts() {
    let dir = tempfile::tempdir().unwrap();
    let one = start(dir.path(), 1, None).await;
    let (token, text) = (one.token().await, one.agent.token().await.unwrap());
    for cut in 0..text.len() {
        assert!(Token::parse(&text[..cut]).is_err(), "cut to {cut}");
    }
    // The right secret behind another cluster's digest is shown to nobody.
    let elsewhere = Token::new([7; 32], token.secret()).unwrap();
    assert!(matches!(one.joined_with(&elsewhere).await.unwrap_err(), JoinError::OtherCluster { .. }));
    // The right digest with a secret that differs in its last letter is a wrong token.
    let mut secret = token.secret().to_owned();
    let last = if secret.pop() == Some('0') { '1' } else { '0' };
    secret.push(last);
    let close = Token::new(*token.ca(), &secret).unwrap();
    assert!(refusal(one.joined_with(&close).await.unwrap_err()).starts_with("wrong token"));
}
