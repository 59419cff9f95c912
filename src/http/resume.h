/* http/resume.h - what a router and a server say to each other about a stream
 * that another server can go on with (request migration).
 *
 * The router asks with a header, whose value is the answer's creation time in
 * unix seconds. A server that can answers with the same header, whose value is
 * the answer's id where the body gave none, else 1. It closes each group of
 * events that it sends at once by a comment of server-sent events (with its
 * blank line), which names the output tokens that are in the group:
 *
 *     data: {...}
 *
 *     : tokens 1202,11
 *
 * After the last group of a request none follows. When the server is lost the
 * router sends the request to others with all ids so far as one more member
 * of the body (a list of whole numbers), with the answer's id where the body
 * gave none, and with the same header: their stream begins with the events
 * behind those. Nothing of this reaches a client.
 *
 * For streams of one output without logprobs; a server leaves the header out
 * of its answer for all others, and refuses the member. */
#ifndef BATON_HTTP_RESUME_H
#define BATON_HTTP_RESUME_H

#define RESUME_HEADER  "X-Baton-Resumable"
#define RESUME_MEMBER  "resume_output_ids"
#define RESUME_COMMENT ": tokens "

#endif
