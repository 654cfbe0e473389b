"""What a careful reader finds in the sample contracts, written by hand: (kind, label, value, clause, quote).

For a risk the value is its severity. White space counts as one blank, wherever a quote breaks its lines.
"""
# ruff: noqa: E501 (quotes as they stand in the contracts)

Gold = tuple[str, str, str, str, str]

NDA: list[Gold] = [
    ("date", "effective date", "2025-03-03", "preamble", "March 3, 2025"),
    ("party", "Halden", "Halden Robotics, Inc.", "preamble",
     "Halden Robotics, Inc., a Delaware corporation with its principal place of business at 410 Foundry Street, "
     "Wilmington, Delaware 19801 (“Halden”)"),
    ("party", "Brightwater", "Brightwater Analytics Ltd", "preamble",
     "Brightwater Analytics Ltd, a company incorporated in England and Wales under number 09417733, whose "
     "registered office is at 18 Tannery Lane, Bristol BS1 6XN (“Brightwater”)"),
    ("obligation", "Receiving Party",
     "shall hold the Confidential Information in strict confidence and protect it with at least the care it uses "
     "for its own confidential information, and never less than reasonable care", "2.1(a)",
     "hold the Confidential Information in strict confidence and protect it with at least the care it uses for its "
     "own confidential information, and never less than reasonable care;"),
    ("obligation", "Receiving Party", "shall use the Confidential Information for the Purpose only", "2.1(b)",
     "use the Confidential Information for the Purpose only;"),
    ("obligation", "Receiving Party",
     "shall disclose the Confidential Information to no one but those of its Representatives who are bound by "
     "duties of confidence no less strict than those of this Agreement", "2.1(c)",
     "disclose the Confidential Information to no one but those of its Representatives who are bound by duties of "
     "confidence no less strict than those of this Agreement; and"),
    ("obligation", "Receiving Party",
     "shall notify the Disclosing Party in writing within two (2) business days after it becomes aware of any "
     "unauthorised use or disclosure", "2.1(d)",
     "notify the Disclosing Party in writing within two (2) business days after it becomes aware of any "
     "unauthorised use or disclosure."),
    ("obligation", "Receiving Party",
     "shall give the Disclosing Party not less than ten (10) days’ written notice, unless the law forbids it, and "
     "shall assist the Disclosing Party in seeking a protective order", "2.2",
     "the Receiving Party shall give the Disclosing Party not less than ten (10) days’ written notice, unless the "
     "law forbids it, and shall assist the Disclosing Party in seeking a protective order."),
    ("notice_period", "notice", "P10D", "2.2", "ten (10) days"),
    ("obligation", "Receiving Party",
     "must not reverse engineer, decompile or disassemble any sample, prototype or software that it receives under "
     "this Agreement", "2.3",
     "The Receiving Party must not reverse engineer, decompile or disassemble any sample, prototype or software "
     "that it receives under this Agreement."),
    ("obligation", "Receiving Party",
     "shall return or destroy all Confidential Information in its possession and shall certify in writing that it "
     "has done so", "3.1",
     "the Receiving Party shall return or destroy all Confidential Information in its possession and shall certify "
     "in writing that it has done so."),
    ("term", "initial term", "P2Y", "4.1", "two (2) years"),
    ("renewal", "renewal term", "P1Y", "4.1", "one (1) year"),
    ("notice_period", "notice of non-renewal", "P90D", "4.1", "ninety (90) days"),
    ("notice_period", "notice of termination", "P30D", "4.2", "thirty (30) days"),
    ("term", "survival", "P3Y", "6.1", "three (3) years"),
    ("obligation", "Brightwater",
     "shall not, directly or indirectly, engage in or provide services to any business that competes with Halden "
     "anywhere in the world", "6.1",
     "Brightwater shall not, directly or indirectly, engage in or provide services to any business that competes "
     "with Halden anywhere in the world."),
    ("term", "survival", "P12M", "6.2", "twelve (12) months"),
    ("obligation", "Neither Party",
     "shall solicit for employment any employee of the other Party with whom it had contact in connection with the "
     "Purpose", "6.2",
     "neither Party shall solicit for employment any employee of the other Party with whom it had contact in "
     "connection with the Purpose."),
    ("obligation", "Brightwater",
     "shall pay to Halden liquidated damages of $250,000, without prejudice to Halden’s right to claim further "
     "damages", "7.2",
     "Brightwater shall pay to Halden liquidated damages of $250,000, without prejudice to Halden’s right to claim "
     "further damages."),
    ("money", "penalty", "250000 USD", "7.2", "$250,000"),
    ("money", "liability cap", "10000 USD", "7.3", "USD 10,000"),
    ("obligation", "Brightwater",
     "shall indemnify, defend and hold harmless Halden and its Affiliates from and against any and all losses, "
     "claims, costs and attorneys’ fees arising out of or relating to this Agreement", "7.4",
     "Brightwater shall indemnify, defend and hold harmless Halden and its Affiliates from and against any and all "
     "losses, claims, costs and attorneys’ fees arising out of or relating to this Agreement."),
    ("governing_law", "governing law", "Delaware", "8.1",
     "governed by and construed in accordance with the laws of the State of Delaware"),
    ("venue", "venue", "Wilmington, Delaware", "8.2", "courts located in Wilmington, Delaware"),
    ("date", "signature date", "2025-02-27", "IN WITNESS WHEREOF", "February 27, 2025"),
    ("date", "signature date", "2025-03-03", "IN WITNESS WHEREOF", "3 March 2025"),
    ("risk", "perpetual confidentiality", "medium", "2.4",
     "The obligations in this Section 2 shall continue in perpetuity with respect to all Confidential Information, "
     "whether or not it is a trade secret, and shall survive any expiration or termination of this Agreement."),
    ("risk", "automatic renewal", "medium", "4.1",
     "Thereafter it shall automatically renew for successive periods of one (1) year each, unless either Party "
     "gives the other at least ninety (90) days’ prior written notice of its intention not to renew."),
    ("risk", "broad assignment of intellectual property", "high", "5.2",
     "Brightwater hereby assigns to Halden all right, title and interest in and to any feedback, improvements, "
     "inventions and derivative works that it conceives in connection with the Purpose, whether or not they are "
     "based on Halden’s Confidential Information, without further consideration."),
    ("risk", "non-compete", "high", "6.1",
     "During the term of this Agreement and for a period of three (3) years thereafter, Brightwater shall not, "
     "directly or indirectly, engage in or provide services to any business that competes with Halden anywhere in "
     "the world."),
    ("risk", "non-solicitation", "low", "6.2",
     "For twelve (12) months after this Agreement ends, neither Party shall solicit for employment any employee of "
     "the other Party with whom it had contact in connection with the Purpose."),
    ("risk", "liquidated damages", "medium", "7.2",
     "For each breach of Section 2, Brightwater shall pay to Halden liquidated damages of $250,000, without "
     "prejudice to Halden’s right to claim further damages."),
    ("risk", "unlimited liability", "high", "7.3",
     "Brightwater’s liability under or in connection with this Agreement shall be unlimited."),
    ("risk", "liability cap for one side", "medium", "7.3",
     "Halden’s total liability under or in connection with this Agreement shall not exceed USD 10,000."),
    ("risk", "one-sided indemnity", "high", "7.4",
     "Brightwater shall indemnify, defend and hold harmless Halden and its Affiliates from and against any and all "
     "losses, claims, costs and attorneys’ fees arising out of or relating to this Agreement."),
    ("risk", "unilateral change", "high", "8.3",
     "Halden may amend the terms of this Agreement at any time in its sole discretion by publishing the amended "
     "terms on its supplier portal."),
]  # fmt: skip

SERVICES: list[Gold] = [
    ("date", "agreement date", "2026-01-14", "preamble", "14th day of January, 2026"),
    ("date", "effective date", "2026-02-01", "preamble", "1 February 2026"),
    ("party", "Customer", "Cedar Valley Health Partners LLC", "preamble",
     "Cedar Valley Health Partners LLC, a limited liability company organised under the laws of the State of New "
     "York, with offices at 77 Orchard Row, Albany, New York 12207 (the “Customer”)"),
    ("party", "Supplier", "Lindqvist & Moreau Consulting GmbH", "preamble",
     "Lindqvist & Moreau Consulting GmbH, a company with its seat in Hamburg, Germany, registered with the "
     "commercial register of Hamburg under HRB 148220 (the “Supplier”)"),
    ("obligation", "Supplier",
     "shall provide the services described in the statement of work in Annex A (the “Services”) with the skill and "
     "care to be expected of an experienced provider", "1.1",
     "The Supplier shall provide the services described in the statement of work in Annex A (the “Services”) with "
     "the skill and care to be expected of an experienced provider."),
    ("obligation", "Supplier", "shall assign a named project lead for the whole of the term", "1.2(a)",
     "assign a named project lead for the whole of the term;"),
    ("obligation", "Supplier",
     "shall replace any member of its team within five (5) business days after the Customer’s reasonable request",
     "1.2(b)",
     "replace any member of its team within five (5) business days after the Customer’s reasonable request; and"),
    ("obligation", "Supplier",
     "shall ensure that everyone who works on the Customer’s premises complies with the Customer’s safety rules",
     "1.2(c)",
     "ensure that everyone who works on the Customer’s premises complies with the Customer’s safety rules."),
    ("obligation", "Customer",
     "shall give the Supplier access to its premises, systems and staff as far as the Services require it", "1.3",
     "The Customer shall give the Supplier access to its premises, systems and staff as far as the Services "
     "require it."),
    ("obligation", "Customer", "shall pay the fees set out in the following table", "2.1",
     "The Customer shall pay the fees set out in the following table."),
    ("money", "fee", "48000.00 USD", "2.1", "USD 48,000.00"),
    ("money", "fee", "310500.00 USD", "2.1", "USD 310,500.00"),
    ("money", "fee", "6250.00 USD", "2.1", "USD 6,250.00"),
    ("money", "fee", "185 USD", "2.1", "$185"),
    ("obligation", "Supplier", "shall invoice the fixed prices on acceptance and the monthly fees in advance", "2.2",
     "The Supplier shall invoice the fixed prices on acceptance and the monthly fees in advance."),
    ("obligation", "Customer", "shall pay a late fee of $500 for each reminder", "2.3",
     "the Customer shall pay a late fee of $500 for each reminder."),
    ("money", "penalty", "500 USD", "2.3", "$500"),
    ("obligation", "Customer",
     "shall reimburse travel expenses that it has approved in writing, up to a total of $1.5 million over the life "
     "of this Agreement", "2.4",
     "The Customer shall reimburse travel expenses that it has approved in writing, up to a total of $1.5 million "
     "over the life of this Agreement."),
    ("money", "expenses", "1500000 USD", "2.4", "$1.5 million"),
    ("term", "initial term", "P36M", "3.1", "thirty-six (36) months"),
    ("renewal", "renewal term", "P12M", "3.1", "twelve (12) months"),
    ("notice_period", "notice of non-renewal", "P180D", "3.1", "one hundred and eighty (180) days"),
    ("notice_period", "notice of termination", "P7D", "3.2", "seven (7) days"),
    ("notice_period", "cure period", "P30D", "3.3", "thirty (30) days"),
    ("obligation", "Supplier",
     "shall return all data of the Customer in a common format and shall, for a period of up to three months, "
     "assist in the handover to another provider", "3.4",
     "the Supplier shall return all data of the Customer in a common format and shall, for a period of up to three "
     "months, assist in the handover to another provider."),
    ("obligation", "Customer", "shall not purchase services similar to the Services from any third party", "5.1",
     "the Customer shall not purchase services similar to the Services from any third party."),
    ("obligation", "Supplier",
     "shall process personal data only on documented instructions of the Customer and must notify the Customer of "
     "any personal data breach without undue delay", "6.1",
     "The Supplier shall process personal data only on documented instructions of the Customer and must notify the "
     "Customer of any personal data breach without undue delay."),
    ("obligation", "Supplier", "must keep patient data within the United States", "6.2",
     "The Supplier must keep patient data within the United States."),
    ("money", "liability cap", "25000 USD", "8.1", "USD 25,000"),
    ("obligation", "Customer",
     "shall indemnify and hold harmless the Supplier against all third-party claims that arise from the use of the "
     "Services", "8.3",
     "The Customer shall indemnify and hold harmless the Supplier against all third-party claims that arise from "
     "the use of the Services."),
    ("obligation", "Supplier",
     "shall maintain professional liability insurance with a limit of not less than EUR 2,000,000 per claim "
     "throughout the term", "8.4",
     "The Supplier shall maintain professional liability insurance with a limit of not less than EUR 2,000,000 per "
     "claim throughout the term."),
    ("money", "insurance", "2000000 EUR", "8.4", "EUR 2,000,000"),
    ("obligation", "Each party",
     "shall keep the other party’s confidential information secret during the term and for a period of five (5) "
     "years thereafter", "9.1",
     "Each party shall keep the other party’s confidential information secret during the term and for a period of "
     "five (5) years thereafter."),
    ("term", "survival", "P5Y", "9.1", "five (5) years"),
    ("governing_law", "governing law", "New York", "10.2", "governed by the laws of the State of New York"),
    ("venue", "venue", "New York County", "10.3", "courts of New York County"),
    ("date", "signature date", "2026-01-14", "Signatures", "January 14, 2026"),
    ("date", "signature date", "2026-01-16", "Signatures", "2026-01-16"),
    ("risk", "unilateral change", "high", "1.4",
     "The Supplier may modify the Services and the fees from time to time in its sole discretion by giving notice "
     "on its website."),
    ("risk", "high interest on late payment", "medium", "2.3",
     "Overdue amounts bear interest at the rate of 2% per month, and the Customer shall pay a late fee of $500 for "
     "each reminder."),
    ("risk", "automatic renewal", "medium", "3.1",
     "It renews automatically for further terms of twelve (12) months unless the Customer gives notice of "
     "non-renewal at least one hundred and eighty (180) days before the end of the current term."),
    ("risk", "termination at will by one side", "medium", "3.2",
     "The Supplier may terminate this Agreement at any time without cause by giving seven (7) days’ notice to the "
     "Customer."),
    ("risk", "broad assignment of intellectual property", "high", "4.2",
     "The Customer hereby assigns to the Supplier all right, title and interest in all data models, workflows, "
     "know-how and other intellectual property disclosed or created in the course of the Services, including the "
     "Customer’s pre-existing materials."),
    ("risk", "exclusivity", "medium", "5.1",
     "During the term the Customer shall not purchase services similar to the Services from any third party."),
    ("risk", "no warranty", "medium", "7.2",
     "Except as stated in this Agreement, the Services are provided “as is” and the Supplier disclaims all "
     "warranties, express or implied."),
    ("risk", "liability cap for one side", "medium", "8.1",
     "The Supplier’s total liability under this Agreement shall not exceed USD 25,000, whatever the legal ground."),
    ("risk", "unlimited liability", "high", "8.2",
     "The Customer shall be liable without limitation for all loss suffered by the Supplier in connection with "
     "this Agreement."),
    ("risk", "one-sided indemnity", "high", "8.3",
     "The Customer shall indemnify and hold harmless the Supplier against all third-party claims that arise from "
     "the use of the Services."),
    ("risk", "free assignment by one side", "medium", "10.1",
     "The Supplier may assign this Agreement to any third party without the consent of the Customer."),
    ("risk", "waiver of a jury or class action", "low", "10.3",
     "The courts of New York County have exclusive jurisdiction, and each party waives any right to a trial by "
     "jury."),
]  # fmt: skip
